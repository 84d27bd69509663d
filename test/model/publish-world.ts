/**
 * The path from WAL to topic with all that can fail around it: the real stages of one run, between
 * a model Postgres and a model topic. Takes choices; gives a world in which the leader has nothing
 * left to do, and what broke on the way. Restarts are those of production: own-epoch.ts owns the
 * epoch, or the next one where the log is torn, and stream-run.ts prepares the run.
 */

import { type Lsn, toLsn } from '../../src/change/lsn.ts';
import { BackfillMerge } from '../../src/leader/backfill/backfill-merge.ts';
import { Reselect } from '../../src/leader/backfill/reselect.ts';
import { StreamObserver } from '../../src/leader/backfill/stream-observer.ts';
import { Batcher } from '../../src/leader/stream/batcher.ts';
import { PublishLoop } from '../../src/leader/stream/publish-loop.ts';
import { StreamRun } from '../../src/leader/stream/stream-run.ts';
import { findLogEnd, type LogEnd } from '../../src/topic/partition-tails.ts';
import { RecordDecoder } from '../../src/topic/records/decoder.ts';
import { RecordEncoder } from '../../src/topic/records/encoder.ts';
import { shapeOf, streamId } from '../support/builders.ts';
import { ModelControlLog, ownModelEpoch, turn } from './model-owner.ts';
import { type Ending, ModelProducer, ModelTopic } from './model-topic.ts';
import { ModelPostgres, type ModelWalsender } from './model-wal.ts';

/** What a wrongly built leader does; the classes may be those of a module with a rule left out. */
export interface PublishRules {
  readonly Run: typeof StreamRun;
  readonly Loop: typeof PublishLoop;
  readonly Batches: typeof Batcher;
  /** Whether a restart owns its epoch and reads the log, or continues from memory. */
  readonly ownsEpoch: boolean;
  /** Whether the end of the log is read behind a fence. */
  readonly fences: boolean;
}

export const rightRules: PublishRules = {
  Run: StreamRun,
  Loop: PublishLoop,
  Batches: Batcher,
  ownsEpoch: true,
  fences: true,
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
const emptyFetches = 3;
/** Of a fence and an epoch begin: each is sent, then committed. */
const callsOfStart = 4;
const endings: readonly Ending[] = ['unanswered', 'lost', 'torn'];
const endingsOfStart: readonly Ending[] = ['torn', 'lost', 'hidden', 'unanswered'];
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
const decoder = new RecordDecoder(registry);

function pick<T>(from: readonly T[], how: number): T {
  const picked = from[how % from.length];
  if (picked === undefined) throw new Error('nothing to pick from');
  return picked;
}

export class PublishWorld {
  readonly postgres = new ModelPostgres(start);
  readonly topic = new ModelTopic(partitions, decoder);
  readonly control = new ModelControlLog();
  readonly #rules: PublishRules;
  /** Idle points at every keepalive, or never more. */
  readonly #idleMs: number;
  /** The epoch of the last run, and the end of the log as that run saw it. */
  #epoch = 0;
  #memory: LogEnd | null = null;
  #run: Run | null = null;
  /** Labels on their way to the control log. */
  readonly #labels: { readonly append: () => void; readonly fail: () => void }[] = [];
  #faultsLeft: number;
  #coordinatorDied = false;

  constructor(rules: PublishRules, idles: boolean, faults: number) {
    this.#rules = rules;
    this.#idleMs = idles ? 0 : 10 ** 9;
    this.#faultsLeft = faults;
  }

  /** The control log's labels, with the end of each. */
  get labels(): ReadonlyMap<string, Lsn> {
    return new Map([...this.control.state.labels].map(([label, { at }]) => [label, at.lsn]));
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
      if (this.#faultsLeft > 0 && this.#labels.length > 0) moves.push(() => this.#failLabel());
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
      else await this.#readNothing(run);
      await this.#settle();
      await this.#checkConfirmed();
    }
    this.#kill(this.#run, 'lost');
  }

  /** Whatever broke: no run may stay in the background. */
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
    return run.producer.isBusy || this.#labels.length > 0;
  }

  #answer(run: Run, how: number): void {
    const label = run.producer.isBusy && how % 4 > 0 ? undefined : this.#labels.shift();
    if (label === undefined) run.producer.finish('answered');
    else label.append();
  }

  /** What the leader reads back of its own topic. */
  async #readBack({ loop }: Run): Promise<void> {
    const checkpoint = findLogEnd(await this.topic.tails())?.checkpoint;
    if (checkpoint != null) loop.seen(checkpoint.at);
  }

  /** A leader that waits for a hidden batch has to restart, once nothing else happens. */
  async #readNothing(run: Run): Promise<void> {
    for (let fetches = 0; fetches < emptyFetches; fetches += 1) run.loop.seenNothing();
    await this.#settle();
    if (this.#run === run) throw new Error('the leader waits for a hidden batch without end');
  }

  #failLabel(): void {
    this.#faultsLeft -= 1;
    this.#labels.shift()?.fail();
  }

  /** The producer fails, or the process dies with its open call; Postgres may die with it. */
  #fault(run: Run, how: number): void {
    this.#faultsLeft -= 1;
    const ending = pick(endings, how);
    if (how % 5 === 0) this.postgres.crash();
    if (how % 2 === 1 && run.producer.isCommitting) {
      run.producer.finish('hidden', how % 3 === 0 ? 1 : 0);
      // Where the coordinator is another broker the producer may continue.
      this.#coordinatorDied = how % 4 === 1;
      return;
    }
    if (how % 2 === 0 && run.producer.isBusy) run.producer.finish(ending);
    else this.#kill(run, ending);
  }

  #kill(run: Run | null, ending: Ending): void {
    run?.wal.close();
    run?.ending.abort();
    for (const { fail } of this.#labels.splice(0)) fail();
    run?.producer.finish(ending);
    this.#run = null;
    this.#coordinatorDied = false;
  }

  /** A new process owns an epoch and streams; after a fault the next start retries. */
  async #start(how: number): Promise<void> {
    const faultsBefore = this.#faultsLeft;
    try {
      if (this.#memory !== null && !this.#rules.ownsEpoch) {
        const producer = new ModelProducer(this.topic, false);
        await producer.open();
        await this.#stream(producer, this.#memory, how);
        return;
      }
      const owned = await this.#own(how);
      this.#epoch = owned.epoch;
      await this.#stream(owned.producer as ModelProducer, owned.end, how);
    } catch (error) {
      if (this.#faultsLeft === faultsBefore) throw error;
    }
  }

  async #own(how: number) {
    const faultyCall = Math.trunc(how / 2) % callsOfStart;
    let calls = 0;
    const { control, topic } = this;
    return ownModelEpoch({
      ...{ control, topic, encoder, decoder, start, fences: this.#rules.fences },
      answer: (producer) => {
        const isFault = how % 2 === 1 && calls === faultyCall && this.#faultsLeft > 0;
        calls += 1;
        if (isFault) this.#faultsLeft -= 1;
        const ending = pick(endingsOfStart, Math.trunc(how / 2 / callsOfStart));
        producer.finish(isFault ? ending : 'answered', how % partitions);
      },
    });
  }

  async #stream(producer: ModelProducer, end: LogEnd, how: number): Promise<void> {
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
        recordLabel: (label, { upto }) => this.#recordLabel(label, upto),
        log: { info: () => undefined, warn: () => undefined },
        nowMs: () => 0,
      },
      { recordsMax, bytesMax: 10_000, ...idle },
      { Batcher: Batches, PublishLoop: Loop },
    );
    const wal = this.postgres.stream(await this.#prepare(run, how));
    const ending = new AbortController();
    const tables = {
      learn: async () => undefined,
      shapeOf: () => table,
      forResnapshot: async () => table,
    };
    const loop = run.loop(wal, tables, (seen, at) => {
      const { unhealed, unfinished } = seen;
      const whole = { point: seen, begin: null, pastCheckpoint: [] };
      this.#memory = { checkpoint: at, ...whole, unhealed, unfinished };
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

  /** The control log answers at once, or not at all. */
  #prepare(run: StreamRun, how: number): Promise<Lsn> {
    const { confirmed } = this.postgres;
    const slot = { name: 's', plugin: 'pgoutput', active: false, walStatus: 'reserved' };
    const prepared = run.prepare(async () => ({ ...slot, confirmedFlushLsn: confirmed }));
    for (const { append, fail } of this.#labels.splice(0)) {
      const isFault = how % 3 === 2 && this.#faultsLeft > 0;
      if (isFault) this.#faultsLeft -= 1;
      if (isFault) fail();
      else append();
    }
    return prepared;
  }

  /** The answer of the control log takes its time as well. */
  #recordLabel(label: string, upto: Lsn): Promise<void> {
    return new Promise((resolve, reject) => {
      const at = { epoch: this.#epoch, lsn: upto };
      const append = (): void => {
        const record = { kind: 'point' as const, label, at, commitTimeMicros: 0n, offsets: [] };
        this.control.append(record).then(() => resolve(), reject);
      };
      this.#labels.push({ append, fail: () => reject(new Error('no answer of the control log')) });
    });
  }

  /** Nothing in the loop waits for a clock: a turn of the event loop takes it to its next wait. */
  async #settle(): Promise<void> {
    await turn();
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
