/**
 * The way from WAL to topic with everything around it that can fail: the real publish loop,
 * batcher, builder, encoder and the real judgement of where a log ends, between a model Postgres
 * and a model topic. Flows in: choices; flows out: a world in which the leader has come to rest,
 * and what broke on the way. Restarts do what fleet/promotion/take-lead.ts and leader/leader.ts do:
 * the log, read behind a fence, says where to go on, a torn end is voided by a new epoch, and the
 * label of the last point is told again.
 */

import { type Lsn, toLsn } from '../../src/change/lsn.ts';
import { foundAtEnd } from '../../src/fleet/promotion/own-epoch.ts';
import { BackfillMerge } from '../../src/leader/backfill/backfill-merge.ts';
import { Reselect } from '../../src/leader/backfill/reselect.ts';
import { StreamObserver } from '../../src/leader/backfill/stream-observer.ts';
import { Batcher } from '../../src/leader/stream/batcher.ts';
import { PublishLoop } from '../../src/leader/stream/publish-loop.ts';
import { StreamRun } from '../../src/leader/stream/stream-run.ts';
import { findLogEnd, type LogEnd } from '../../src/topic/partition-tails.ts';
import { RecordDecoder } from '../../src/topic/records/decoder.ts';
import { RecordEncoder } from '../../src/topic/records/encoder.ts';
import { beginOf, shapeOf, streamId } from '../support/builders.ts';
import { type Ending, ModelProducer, ModelTopic } from './model-topic.ts';
import { ModelPostgres, type ModelWalsender } from './model-wal.ts';

/** What a wrongly built leader does; the classes may be those of a module with a rule left out. */
export interface PublishRules {
  readonly Loop: typeof PublishLoop;
  readonly Batches: typeof Batcher;
  readonly Run: typeof StreamRun;
  /** Whether a restart inits a producer and reads the log, or goes on from memory. */
  readonly startsAnew: boolean;
  /** What the end of the log is read behind; its own transaction may be aborted by a crash. */
  readonly fence: 'may-abort' | 'none';
}

export const rightRules: PublishRules = {
  Loop: PublishLoop,
  Batches: Batcher,
  Run: StreamRun,
  startsAnew: true,
  fence: 'may-abort',
};

/** The second number says how, where there are several ways. */
export type Choice = readonly [what: number, how: number];

interface Run {
  readonly wal: ModelWalsender;
  readonly producer: ModelProducer;
  readonly loop: PublishLoop;
  readonly ending: AbortController;
  /** Settles with the run; `ended` is true from then on. */
  readonly done: Promise<void>;
  ended: boolean;
}

const partitions = 2;
const recordsMax = 3;
const start = toLsn(100n);
const table = shapeOf('public.t', 'id text', 'v text');
const schemas: object[] = [];
const registry = {
  register: async (_subject: string, schema: object): Promise<number> => {
    const known = schemas.indexOf(schema);
    return known >= 0 ? known + 1 : schemas.push(schema);
  },
  schemaById: async (id: number): Promise<object> => schemas[id - 1] ?? {},
};
const encoder = await RecordEncoder.open({ topic: 't', partitions, registry });

export class PublishWorld {
  readonly postgres = new ModelPostgres(start);
  readonly topic = new ModelTopic(partitions, new RecordDecoder(registry));
  /** What the control log was told, by label. */
  readonly told = new Map<string, Lsn>();
  readonly #rules: PublishRules;
  /** Idle points at every keepalive, or never more. */
  readonly #idleMs: number;
  #epoch = 1;
  /** Where the last run stood, as it saw it. */
  #memory: LogEnd | null = null;
  #run: Run | null = null;
  /** Appends to the control log that are not answered yet. */
  readonly #telling: { readonly tell: () => void; readonly fail: () => void }[] = [];
  #faultsLeft: number;
  #coordinatorDied = false;

  constructor(rules: PublishRules, idles: boolean, faults: number) {
    this.#rules = rules;
    this.#idleMs = idles ? 0 : 10 ** 9;
    this.#faultsLeft = faults;
  }

  /** One thing happens, then the leader goes as far as it can. */
  async step([what, how]: Choice): Promise<void> {
    if (this.#run === null) await this.#start(how);
    const run = this.#run;
    const moves: (() => void | Promise<void>)[] = [
      () => this.#write(how),
      () => this.postgres.move(how % 3),
      () => this.postgres.persist(),
    ];
    if (run !== null) {
      const deliver = (): void => run.wal.deliver();
      moves.push(() => run.wal.keepalive());
      if (run.wal.hasMore) moves.push(deliver, deliver, deliver, deliver, deliver, deliver);
      moves.push(() => this.#readBack(run));
      if (this.#waits(run)) moves.push(...new Array(4).fill(() => this.#answer(run, how)));
      if (this.#faultsLeft > 0) moves.push(() => this.#fault(run, how));
      if (this.#faultsLeft > 0 && this.#telling.length > 0) moves.push(() => this.#failToTell());
    }
    await moves[what % moves.length]?.();
    await this.#settle();
    if (this.#coordinatorDied) this.#kill(run, 'lost');
    await this.#checkConfirmed();
  }

  /** No more faults: all WAL goes out and everything is answered. */
  async finish(): Promise<void> {
    this.#faultsLeft = 0;
    for (;;) {
      if (this.#run === null) await this.#start(0);
      const run = this.#run;
      if (run === null) continue;
      await this.#readBack(run);
      await this.#settle();
      if (this.#waits(run)) this.#answer(run, 0);
      else if (run.wal.hasMore) run.wal.deliver();
      else if (!this.topic.hides) break;
      else await this.#lookInVain(run);
      await this.#settle();
      await this.#checkConfirmed();
    }
    this.#kill(this.#run, 'lost');
  }

  /** Whatever broke: no run may go on in the background. */
  end(): void {
    this.#kill(this.#run, 'lost');
  }

  #write(how: number): void {
    const { transactions } = this.postgres;
    const id = transactions.length;
    const rows = Array.from({ length: how % 5 }, (_, i) => {
      return { key: `${id}.${i}`, value: (how + i) % 4 === 0 ? null : `${id}` };
    });
    const label = how % 4 === 0 ? `l${id}` : null;
    this.postgres.commit(rows, label, how % 3 === 0 ? how % 4 : 0);
  }

  #waits(run: Run): boolean {
    return run.producer.isBusy || this.#telling.length > 0;
  }

  #answer(run: Run, how: number): void {
    const telling = run.producer.isBusy && how % 4 > 0 ? undefined : this.#telling.shift();
    if (telling === undefined) run.producer.finish('answered');
    else telling.tell();
  }

  /** What the leader's reader of its own topic tells it. */
  async #readBack({ loop }: Run): Promise<void> {
    const checkpoint = findLogEnd(await this.topic.tails())?.checkpoint;
    if (checkpoint != null) loop.seen(checkpoint.at);
  }

  /** Once nothing else happens a leader that waits for a hidden batch has to begin again. */
  async #lookInVain(run: Run): Promise<void> {
    for (let looks = 0; looks < 3; looks += 1) run.loop.seenNothing();
    await this.#settle();
    if (this.#run === run) throw new Error('a hidden batch is waited for for ever');
  }

  #failToTell(): void {
    this.#faultsLeft -= 1;
    this.#telling.shift()?.fail();
  }

  /** The producer fails, or the process dies with what is under way; Postgres may die with it. */
  #fault(run: Run, how: number): void {
    this.#faultsLeft -= 1;
    const endings: readonly Ending[] = ['unanswered', 'lost', 'torn'];
    const ending = endings[how % endings.length] ?? 'lost';
    if (how % 5 === 0) this.postgres.crash();
    if (how % 2 === 1 && run.producer.isCommitting) {
      run.producer.finish('hidden', how % 3 === 0 ? 1 : 0);
      // Where the coordinator is another broker the producer may go on.
      this.#coordinatorDied = how % 4 === 1;
      return;
    }
    if (how % 2 === 0 && run.producer.isBusy) run.producer.finish(ending);
    else this.#kill(run, ending);
  }

  #kill(run: Run | null, ending: Ending): void {
    run?.wal.close();
    run?.ending.abort();
    for (const { fail } of this.#telling.splice(0)) fail();
    run?.producer.finish(ending);
    this.#run = null;
    this.#coordinatorDied = false;
  }

  /** Owns the epoch, or the next one where the log is torn; the epoch begin may tear as well. */
  async #start(how: number): Promise<void> {
    const producer = new ModelProducer(this.topic, this.#rules.startsAnew);
    if (this.#memory !== null && !this.#rules.startsAnew)
      return this.#lead(producer, this.#memory, how);
    const { fence } = this.#rules;
    if (fence !== 'none') this.topic.append(producer, encoder.encodeFence(this.#epoch, 0n));
    if (fence === 'may-abort' && this.#faultsLeft > 0 && how % 3 === 1) {
      this.#faultsLeft -= 1;
      this.topic.end(() => false);
      return this.#start(how + 1);
    }
    if (fence !== 'none') this.topic.end(() => true);
    const end = findLogEnd(await this.topic.tails());
    if (end === null) throw new Error('the whole log is too short');
    const found = foundAtEnd(end, this.#epoch);
    if (found === 'over') {
      this.#epoch += 1;
      return this.#start(how);
    }
    if (found === 'begun') return this.#lead(producer, end, how);
    const begin = beginOf({
      epoch: this.#epoch,
      base: end.checkpoint?.at ?? null,
      startLsn: end.checkpoint?.at.lsn ?? start,
    });
    this.topic.append(producer, encoder.encodeEpochBegin(begin, 0n));
    const isTorn = this.#faultsLeft > 0 && how % 3 === 0;
    if (isTorn) this.#faultsLeft -= 1;
    this.topic.end((partition) => !isTorn || partition === how % partitions);
    return this.#start(how + 1);
  }

  async #lead(producer: ModelProducer, end: LogEnd, how: number): Promise<void> {
    const { checkpoint, point } = end;
    if (checkpoint === null) throw new Error('a log that has begun has a checkpoint');
    const { Run, Loop, Batches } = this.#rules;
    const reselect = new Reselect(end.unhealed);
    const backfill = new BackfillMerge(end.unfinished);
    const idle = { idleSoonMs: this.#idleMs, idleEveryMs: this.#idleMs };
    const run = new Run(
      {
        ...{ streamId, epoch: this.#epoch, slot: 's', checkpoint, lastPoint: point },
        observer: new StreamObserver(reselect, backfill, () => 0),
        ...{ encoder, producer },
        recordLabel: (label, { upto }) => this.#tell(label, upto),
        log: { info: () => undefined, warn: () => undefined },
        nowMs: () => 0,
      },
      { recordsMax, bytesMax: 10_000, ...idle },
      { Batcher: Batches, PublishLoop: Loop },
    );
    const from = await this.#prepare(run, how);
    if (from === null) return;
    const wal = this.postgres.stream(from);
    const ending = new AbortController();
    const tables = {
      learn: async () => undefined,
      shapeOf: () => table,
      forResnapshot: async () => table,
    };
    const loop = run.loop(wal, tables, (seen, at) => {
      const { unhealed, unfinished } = seen;
      this.#memory = {
        checkpoint: at,
        point: seen,
        begin: null,
        pastCheckpoint: [],
        unhealed,
        unfinished,
      };
    });
    const done = loop.run(ending.signal);
    const started: Run = { wal, producer, loop, ending, ended: false, done };
    // The error that ends a run is one that the world caused.
    const ended = (): void => {
      started.ended = true;
    };
    done.then(ended, ended);
    this.#run = started;
  }

  /** Null where the control log did not answer: the next start tries again. */
  async #prepare(run: StreamRun, how: number): Promise<Lsn | null> {
    const { confirmed } = this.postgres;
    const slot = { name: 's', plugin: 'pgoutput', active: false, walStatus: 'reserved' };
    const prepared = run.prepare(async () => ({ ...slot, confirmedFlushLsn: confirmed }));
    const isFailed = this.#telling.length > 0 && this.#faultsLeft > 0 && how % 3 === 2;
    if (isFailed) this.#faultsLeft -= 1;
    for (const { tell, fail } of this.#telling.splice(0)) {
      if (isFailed) fail();
      else tell();
    }
    if (!isFailed) return prepared;
    await prepared.catch(() => undefined);
    return null;
  }

  /** A named point goes to the control log, whose answer takes its time as well. */
  #tell(label: string, upto: Lsn): Promise<void> {
    return new Promise((resolve, reject) => {
      const tell = (): void => {
        this.told.set(label, upto);
        resolve();
      };
      this.#telling.push({ tell, fail: () => reject(new Error('no answer of the control log')) });
    });
  }

  /** Nothing in the loop waits for a clock: a turn of the event loop takes it to its next wait. */
  async #settle(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    if (this.#run?.ended) this.#kill(this.#run, 'lost');
  }

  async #checkConfirmed(): Promise<void> {
    const { confirmed } = this.postgres;
    if (confirmed === start) return;
    const upto = findLogEnd(await this.topic.tails('decided'))?.checkpoint?.at.lsn ?? start;
    if (confirmed > upto)
      throw new Error(`${confirmed} was confirmed, the log holds up to ${upto}`);
  }
}
