/**
 * A topic that one transactional producer writes. Flows in: calls of producers, and how each ends:
 * done, done without an answer, never done, done in some partitions only, or answered and not yet
 * readable everywhere. Flows out: what a reader of committed records sees. A call waits until the
 * world says how it ends; a new producer fences the previous one and ends its open transaction.
 */
import type {
  CommittedReader,
  FetchedPartition,
  FetchedRecord,
  OutgoingRecord,
  TransactionalProducer,
  Watermarks,
} from '../../src/topic/log.ts';
import type { Tail } from '../../src/topic/partition-tails.ts';
import type { RecordDecoder } from '../../src/topic/records/decoder.ts';
import type { StreamRecord } from '../../src/topic/records/stream-record.ts';

interface Entry {
  readonly fetched: FetchedRecord;
  /** Hidden: committed for the coordinator, and open here until the next end of a transaction. */
  state: 'open' | 'hidden' | 'committed' | 'aborted';
  decoded: StreamRecord | null;
}

interface Partition {
  readonly entries: Entry[];
  next: bigint;
}

export class ModelTopic {
  readonly #partitions: readonly Partition[];
  readonly #decoder: RecordDecoder;
  #owner: ModelProducer | null = null;

  constructor(partitions: number, decoder: RecordDecoder) {
    this.#partitions = Array.from({ length: partitions }, () => ({ entries: [], next: 0n }));
    this.#decoder = decoder;
  }

  get partitions(): number {
    return this.#partitions.length;
  }

  /** Whether something answered as committed cannot be read. */
  get hides(): boolean {
    return this.#partitions.some(({ entries }) => entries.some(({ state }) => state === 'hidden'));
  }

  /** Fences the previous producer; without `abort`, a broken rule, its transaction stays open. */
  own(producer: ModelProducer, abort: boolean): void {
    this.#owner = producer;
    const isOpen = this.#partitions.some(({ entries }) =>
      entries.some(({ state }) => state === 'open'),
    );
    if (abort && isOpen) this.end(() => false);
  }

  append(producer: ModelProducer, records: readonly OutgoingRecord[]): void {
    if (producer !== this.#owner) throw new Error('a fenced producer writes');
    for (const { partition, key, value, headers } of records) {
      const log = this.#partition(partition);
      const bytes = Object.entries(headers).map(([name, text]) => [name, Buffer.from(text)]);
      const place = { partition, offset: log.next, timestampMs: Number(log.next) };
      const fetched = { ...place, key, value, headers: Object.fromEntries(bytes) };
      log.entries.push({ fetched, state: 'open', decoded: null });
      log.next += 1n;
    }
  }

  /** Ends the open transaction; `commits` says in which partitions it is committed. */
  end(commits: (partition: number) => boolean): (bigint | null)[] {
    return this.#partitions.map((log, partition) => {
      const open = log.entries.filter(({ state }) => state === 'open' || state === 'hidden');
      for (const entry of open) entry.state = commits(partition) ? 'committed' : 'aborted';
      // A marker takes an offset.
      if (open.length > 0) log.next += 1n;
      return open[open.length - 1]?.fetched.offset ?? null;
    });
  }

  /** The coordinator dies after its answer: some partitions do not get their marker. */
  hide(from: number): (bigint | null)[] {
    const open = this.#partitions.map(({ entries }) =>
      entries.filter(({ state }) => state === 'open'),
    );
    const offsets = this.end(() => true);
    for (const [partition, entries] of open.entries()) {
      if (partition >= from) for (const entry of entries) entry.state = 'hidden';
    }
    return offsets;
  }

  /**
   * What is read as committed, partition by partition: nothing at or behind what is open. `decided`
   * gives what has been answered as committed instead.
   */
  async tails(view: 'read' | 'decided' = 'read'): Promise<Tail[]> {
    const tails: Tail[] = [];
    for (const [partition, { entries }] of this.#partitions.entries()) {
      const records: StreamRecord[] = [];
      for (const entry of entries) {
        if (entry.state === 'hidden' && view === 'read') break;
        if (entry.state === 'open' || entry.state === 'aborted') continue;
        entry.decoded ??= (await this.#decoder.decode([entry.fetched]))[0] ?? null;
        if (entry.decoded !== null) records.push(entry.decoded);
      }
      tails.push({ partition, records, reachesStart: true });
    }
    return tails;
  }

  /** What production reads with: committed records up to the last stable offset. */
  get reader(): CommittedReader {
    return {
      watermarks: async () => this.#partitions.map((_, partition) => this.#watermarks(partition)),
      fetch: async (from) => [...from].map(([partition, offset]) => this.#fetch(partition, offset)),
      close: async () => undefined,
    };
  }

  #watermarks(partition: number): Watermarks {
    const { entries, next } = this.#partition(partition);
    const undecided = entries.find(({ state }) => state === 'open' || state === 'hidden');
    const lastStableOffset = undecided?.fetched.offset ?? next;
    return { partition, lowWatermark: 0n, lastStableOffset };
  }

  #fetch(partition: number, from: bigint): FetchedPartition {
    const watermarks = this.#watermarks(partition);
    const { lastStableOffset } = watermarks;
    const records = this.#partition(partition)
      .entries.filter(({ fetched: { offset }, state }) => {
        return state === 'committed' && offset >= from && offset < lastStableOffset;
      })
      .map(({ fetched }) => fetched);
    return { ...watermarks, records, nextOffset: lastStableOffset, broker: 0 };
  }

  #partition(partition: number): Partition {
    const log = this.#partitions[partition];
    if (log === undefined) throw new Error(`there is no partition ${partition}`);
    return log;
  }
}

/** How a call of a producer ends. */
export type Ending = 'answered' | 'unanswered' | 'lost' | 'torn' | 'hidden';

interface Call {
  readonly land: (ending: Ending) => readonly (bigint | null)[];
  readonly resolve: (offsets: readonly (bigint | null)[]) => void;
  readonly reject: (error: Error) => void;
}

export class ModelProducer implements TransactionalProducer {
  readonly #topic: ModelTopic;
  readonly #abort: boolean;
  #call: Call | null = null;
  #commits = false;
  #hidesFrom = 0;
  #dead = false;

  constructor(topic: ModelTopic, abort = true) {
    this.#topic = topic;
    this.#abort = abort;
  }

  get isBusy(): boolean {
    return this.#call !== null;
  }

  get isCommitting(): boolean {
    return this.#call !== null && this.#commits;
  }

  async open(): Promise<void> {
    this.#topic.own(this, this.#abort);
  }

  async send(records: readonly OutgoingRecord[]): Promise<void> {
    await this.#wait((ending) => {
      if (ending !== 'lost') this.#topic.append(this, records);
      return [];
    });
  }

  commit(): Promise<readonly (bigint | null)[]> {
    this.#commits = true;
    return this.#wait((ending) => {
      this.#commits = false;
      if (ending === 'lost') return [];
      if (ending === 'hidden') return this.#topic.hide(this.#hidesFrom);
      return this.#topic.end((partition) => ending !== 'torn' || partition === 0);
    });
  }

  close(): Promise<void> {
    this.#dead = true;
    return Promise.resolve();
  }

  /**
   * Only an answer leaves the producer alive. `hidesFrom` is the first partition that does not get
   * its marker.
   */
  finish(ending: Ending, hidesFrom = 0): void {
    this.#hidesFrom = hidesFrom;
    const call = this.#call;
    this.#call = null;
    const offsets = call?.land(ending) ?? [];
    if (ending === 'answered' || ending === 'hidden') {
      call?.resolve(offsets);
      return;
    }
    this.#dead = true;
    call?.reject(new Error(`a call of the producer was ${ending}`));
  }

  #wait(land: Call['land']): Promise<readonly (bigint | null)[]> {
    if (this.#dead) return Promise.reject(new Error('a dead producer is used'));
    if (this.#call !== null) return Promise.reject(new Error('two calls at a time'));
    return new Promise((resolve, reject) => {
      this.#call = { land, resolve, reject };
    });
  }
}
