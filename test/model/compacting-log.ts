/**
 * A log that compacts as Kafka does, on every replica for itself. Flows in: records, the passing of
 * time, new segments, cleanings at any moment, moves of a partition's leader; flows out: what a
 * reader of the leader sees. A cleaning looks at what is new up to a segment that is neither being
 * written to nor younger than the lag, and takes from there and from all before it what a newer
 * record replaces. Tombstones stay for the retention from their first cleaning on.
 */
import type { Tail } from '../../src/topic/partition-tails.ts';
import type { StreamRecord } from '../../src/topic/records/stream-record.ts';

interface Entry {
  readonly record: StreamRecord;
  readonly appendedMs: number;
  /** From when on a cleaning may take a tombstone; null before its first. */
  deleteFromMs: number | null;
}

interface Replica {
  entries: Entry[];
  cleanedTo: bigint;
}

interface Partition {
  readonly replicas: readonly Replica[];
  leader: number;
  next: bigint;
  /** First offsets; the last is written to. */
  readonly segments: bigint[];
}

export interface LogTimes {
  readonly lagMs: number;
  readonly retentionMs: number;
}

const replicaCount = 2;

export class CompactingLog {
  nowMs = 0;
  readonly #times: LogTimes;
  readonly #partitions: readonly Partition[];

  constructor(partitions: number, times: LogTimes) {
    this.#times = times;
    this.#partitions = Array.from({ length: partitions }, () => ({
      replicas: Array.from({ length: replicaCount }, () => ({ entries: [], cleanedTo: 0n })),
      leader: 0,
      next: 0n,
      segments: [0n],
    }));
  }

  get partitions(): number {
    return this.#partitions.length;
  }

  /** The offset of the next record. */
  next(partition: number): bigint {
    return this.#of(partition).next;
  }

  append(record: StreamRecord): void {
    const log = this.#of(record.partition);
    for (const { entries } of log.replicas) {
      entries.push({ record, appendedMs: this.nowMs, deleteFromMs: null });
    }
    log.next += 1n;
  }

  /** The marker of a transaction takes an offset. */
  checkpoint(partition: number): void {
    this.#of(partition).next += 1n;
  }

  roll(partition: number): void {
    const { segments, next } = this.#of(partition);
    if (next > (segments[segments.length - 1] ?? 0n)) segments.push(next);
  }

  leaderOf(partition: number): number {
    return this.#of(partition).leader;
  }

  moveLeader(partition: number): void {
    const log = this.#of(partition);
    log.leader = (log.leader + 1) % log.replicas.length;
  }

  /** `how` chooses how far it gets. */
  clean(partition: number, replicaNumber: number, how: number): void {
    const { replicas, segments } = this.#of(partition);
    const replica = replicas[replicaNumber % replicas.length];
    if (replica === undefined) return;
    const ends = segments.filter((base) => base > 0n && this.#isCleanable(replica, base));
    const end = ends[ends.length - 1 - (how % Math.max(1, Math.min(2, ends.length)))];
    if (end === undefined) return;
    const newest = new Map<string, bigint>();
    for (const { record } of replica.entries) {
      const { offset } = record;
      if (offset >= replica.cleanedTo && offset < end) newest.set(compactionKey(record), offset);
    }
    replica.entries = replica.entries.filter((entry) => {
      const { record } = entry;
      if (record.offset >= end) return true;
      if ((newest.get(compactionKey(record)) ?? 0n) > record.offset) return false;
      if (record.kind !== 'row' || record.value !== null) return true;
      if (entry.deleteFromMs !== null) return this.nowMs < entry.deleteFromMs;
      entry.deleteFromMs = this.nowMs + this.#times.retentionMs;
      return true;
    });
    if (end > replica.cleanedTo) replica.cleanedTo = end;
  }

  #isCleanable({ entries }: Replica, end: bigint): boolean {
    return entries.every(({ record, appendedMs }) => {
      return record.offset >= end || appendedMs + this.#times.lagMs <= this.nowMs;
    });
  }

  /** Up to `count` records, and where to read on. */
  read(
    partition: number,
    from: bigint,
    count = Number.POSITIVE_INFINITY,
  ): { readonly records: StreamRecord[]; readonly nextOffset: bigint; readonly broker: number } {
    const { replicas, leader, next } = this.#of(partition);
    const all = (replicas[leader]?.entries ?? []).filter(({ record }) => record.offset >= from);
    const records = all.slice(0, count).map(({ record }) => record);
    const isAll = records.length === all.length;
    const nextOffset = isAll ? next : (records[records.length - 1]?.offset ?? 0n) + 1n;
    return { records, nextOffset, broker: leader };
  }

  get lastStable(): readonly bigint[] {
    return this.#partitions.map(({ next }) => next);
  }

  tails(): Tail[] {
    return this.#partitions.map((_, partition) => {
      const { records } = this.read(partition, 0n);
      return { partition, records, reachesStart: true };
    });
  }

  #of(partition: number): Partition {
    const log = this.#partitions[partition];
    if (log === undefined) throw new Error(`there is no partition ${partition}`);
    return log;
  }
}

/** What compaction takes for the same; of truncates and rereads it keeps all. */
export function compactionKey(record: StreamRecord): string {
  switch (record.kind) {
    case 'row':
      return record.key.toString();
    case 'truncate':
    case 'reread':
      return `${record.kind} at ${record.offset}`;
    case 'relation':
      return `relation ${record.relation.id}`;
    case 'epoch':
      return `epoch ${record.begin.epoch}`;
    default:
      return record.kind;
  }
}
