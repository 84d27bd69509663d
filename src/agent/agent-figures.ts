/**
 * What an agent counts while it serves a node, over all its attempts. It takes the events of the
 * agent's work and its failures, and gives figures for monitoring that cost no query. They decide
 * nothing.
 */
import type { Point, RelationId, UnfinishedTable } from '../change/change.ts';
import type { EpochLsn } from '../change/position.ts';
import { UnderstudyError } from '../errors/understudy-error.ts';
import { unfinishedStatus } from '../fleet/status/progress-text.ts';
import type { CommittedReader, OutgoingRecord, TransactionalProducer } from '../topic/log.ts';
import type { WalReading } from './wal-watch.ts';

/** The part of a running follower that is read. */
interface Progress {
  readonly position: {
    readonly at: EpochLsn;
    readonly commitTimeMicros: bigint;
    readonly unfinished: readonly RelationId[];
  };
  readonly caughtUp: boolean;
}

/** The part of the watch over a node's WAL that is read. */
interface Watch {
  readonly latest: WalReading;
  /** When the node's Postgres last answered it. */
  readonly answeredMs: number | null;
}

interface Failure {
  readonly code: string;
  readonly message: string;
  readonly atMs: number;
}

export class AgentFigures {
  readonly node: string;
  readonly #nowMs: () => number;
  readonly #wal: () => WalReading;
  readonly #polledMs: () => number | null;
  #following: Progress | null = null;
  #published: { readonly at: EpochLsn; readonly commitTimeMs: number | null } | null = null;
  #unfinished: readonly UnfinishedTable[] = [];
  #batchesPublished = 0;
  #batchesApplied = 0;
  #recordsPublished = 0;
  #rowsApplied = 0;
  #publishedBytes = 0;
  #failedAttempts = 0;
  #lastFailure: Failure | null = null;
  #isKafkaAway = false;
  /** When the fetch began that the node's role waits for. */
  #fetchFromMs: number | null = null;
  /** When its Postgres last answered, in its role. */
  #answeredMs: number | null = null;

  constructor(node: string, nowMs: () => number, watch: Watch | null) {
    this.node = node;
    this.#nowMs = nowMs;
    this.#wal = () => watch?.latest ?? null;
    this.#polledMs = () => watch?.answeredMs ?? null;
  }

  /** The follower is read whenever the figures are. */
  onFollowing(follower: Progress): void {
    this.#works();
    this.#following = follower;
  }

  onApplied(rows: number): void {
    this.#batchesApplied += 1;
    this.#rowsApplied += rows;
  }

  onLeading(at: EpochLsn, unfinished: readonly UnfinishedTable[]): void {
    this.#works();
    this.#unfinished = unfinished;
    this.#published = { at, commitTimeMs: null };
  }

  onPublished({ epoch, upto, commitTimeMicros, unfinished }: Point, records: number): void {
    this.#unfinished = unfinished;
    const commitTimeMs = Number(commitTimeMicros / 1000n);
    this.#published = { at: { epoch, lsn: upto }, commitTimeMs };
    this.#batchesPublished += 1;
    this.#recordsPublished += records;
  }

  onFailed(error: unknown): void {
    const code = failureCode(error);
    this.onEnded();
    this.#failedAttempts += 1;
    this.#lastFailure = { code, message: messageOf(error), atMs: this.#nowMs() };
    this.#isKafkaAway = code === 'KAFKA_UNREACHABLE';
  }

  /** An attempt has ended: the node has no role until the next one gives it one. */
  onEnded(): void {
    this.#following = null;
    this.#published = null;
    this.#fetchFromMs = null;
    this.#answeredMs = null;
  }

  /** The same producer, with what it sends counted. */
  counting(producer: TransactionalProducer): TransactionalProducer {
    return {
      open: () => producer.open(),
      send: (records) => {
        for (const record of records) this.#publishedBytes += sizeOf(record);
        return producer.send(records);
      },
      commit: () => producer.commit(),
      close: () => producer.close(),
    };
  }

  /** The same reader, with the time that its fetches wait measured. */
  timing(reader: CommittedReader): CommittedReader {
    return {
      watermarks: () => reader.watermarks(),
      fetch: async (from, options) => {
        const fromMs = this.#nowMs();
        this.#fetchFromMs = fromMs;
        try {
          return await reader.fetch(from, options);
        } finally {
          if (this.#fetchFromMs === fromMs) this.#fetchFromMs = null;
        }
      },
      close: () => reader.close(),
    };
  }

  #works(): void {
    this.#following = null;
    this.#published = null;
    this.#answeredMs = this.#nowMs();
    this.#isKafkaAway = false;
  }

  read() {
    const [following, published] = [this.#following, this.#published];
    const slot = this.#wal()?.slot ?? null;
    return {
      node: this.node,
      role: published !== null ? 'leader' : following !== null ? 'follower' : null,
      at: published?.at ?? following?.position.at ?? null,
      commitTimeMs: published?.commitTimeMs ?? commitTimeOf(following),
      lagBytes: slot?.unconfirmedBytes ?? null,
      lagMs: this.#lagMs(following),
      slot: this.#slot(),
      batches: { published: this.#batchesPublished, applied: this.#batchesApplied },
      records: { published: this.#recordsPublished, applied: this.#rowsApplied },
      publishedBytes: this.#publishedBytes,
      unfinished: published !== null ? this.#unfinished.map(unfinishedStatus) : lackedBy(following),
      failedAttempts: this.#failedAttempts,
      lastFailure: this.#lastFailure,
      isKafkaAway: this.#isKafkaAway,
      kafkaWaitMs: this.#fetchFromMs === null ? null : this.#nowMs() - this.#fetchFromMs,
      postgresWaitMs: this.#postgresWaitMs(),
    } as const;
  }

  #postgresWaitMs(): number | null {
    if (this.#answeredMs === null) return null;
    return this.#nowMs() - Math.max(this.#answeredMs, this.#polledMs() ?? 0);
  }

  #lagMs(following: Progress | null): number | null {
    if (following === null) return null;
    if (following.caughtUp) return 0;
    return Math.max(0, this.#nowMs() - (commitTimeOf(following) ?? 0));
  }

  /** A leader that has no slot has lost it. */
  #slot() {
    const reading = this.#wal();
    if (reading === null) return null;
    const { slot } = reading;
    return {
      retainedBytes: slot?.retainedBytes ?? null,
      safeBytes: slot?.safeBytes ?? null,
      isLost: slot === null || slot.walStatus === 'lost',
    };
  }
}

function lackedBy(following: Progress | null) {
  const unfinished = following?.position.unfinished ?? [];
  return unfinished.map((table) => ({ table, rows: null, estimate: null }));
}

function commitTimeOf(following: Progress | null): number | null {
  return following === null ? null : Number(following.position.commitTimeMicros / 1000n);
}

function sizeOf({ key, value }: OutgoingRecord): number {
  return key.length + (value?.length ?? 0);
}

/** The text of an unknown error may hold a secret: it is in the log, which redacts it. */
function messageOf(error: unknown): string {
  return error instanceof UnderstudyError ? error.message : 'see the log of the agent';
}

/** Of this program, else of Postgres or the system. */
export function failureCode(error: unknown): string {
  if (error instanceof UnderstudyError) return error.code;
  if (error instanceof Error && 'code' in error) return String(error.code);
  return 'unknown';
}
