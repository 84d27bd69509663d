/**
 * The stages of a row's path on the leader, as interfaces: what flows between two of them, in which
 * order, and who acknowledges. Types alone; each class declares which interface it implements.
 *
 *     WalSource --event--> ChangeBuilder --change--> RowObserver
 *         ^                     |
 *         |                  encoder --records--> BatchPolicy --action--> Publisher --> Kafka
 *         |                                                                  |
 *         +---- confirm(upto) ---- Publisher <---- seen(at) ---- read-back <-+
 *
 * Order: one event at a time, in WAL order; no stage reorders, drops or repeats what it was given,
 * and a stage that cannot take more is not called: the WAL waits in the socket.
 * Acknowledgement: Postgres may discard WAL below an LSN only when the point that ends there was
 * read back from every partition. Nothing but the publisher confirms, and nothing but `confirm`
 * moves what a standby status says; an LSN is passed on as it is, never plus or minus one.
 */
import type {
  Change,
  Checkpoint,
  Point,
  RelationId,
  RelationShape,
  RowChange,
} from '../../change/change.ts';
import type { Lsn } from '../../change/lsn.ts';
import type { EpochLsn, Position } from '../../change/position.ts';
import type { OutgoingRecord } from '../../topic/log.ts';
import type { PgoutputMessage, RelationMessage } from './pgoutput-decoder.ts';

export type WalEvent =
  | { readonly kind: 'message'; readonly message: PgoutputMessage }
  /** The server has decoded everything below `walEnd`. */
  | { readonly kind: 'keepalive'; readonly walEnd: Lsn };

/**
 * One walsender connection: every message from exactly the LSN that was asked for, in WAL order.
 * One that pgoutput-decoder.ts does not know fails the connection; it is never left out.
 */
export interface WalSource {
  /** Aborted, with the error as its reason, as soon as the connection has failed. */
  readonly ended: AbortSignal;
  /** The next event, or null when none is queued. Throws once the connection has failed. */
  shift(): WalEvent | null;
  /** Calls back once, when `shift` gives an event or throws; at once where it would now. */
  onReadable(callback: () => void): void;
  /**
   * Lets Postgres discard WAL below `upto`. It is sent at once, as both write and flush; a lower
   * LSN than before changes nothing.
   */
  confirm(upto: Lsn): void;
}

/** What the stream knows of the tables in the WAL. */
export interface StreamTables {
  /**
   * Before `shapeOf` is asked: compares the table with what the stream knows, or gives ids to one
   * that is new. Throws where rows of the table would not be what the stream says of it.
   */
  learn(message: RelationMessage, commitLsn: Lsn): Promise<void>;
  /** Null for a table that is not part of the stream: its changes are left out. */
  shapeOf(message: RelationMessage): RelationShape | null;
  /** The relation, if its rows can be read and published again, or if it has ended; else null. */
  forResnapshot(relation: RelationId): Promise<RelationShape | null>;
}

export type BuiltEvent =
  | {
      readonly kind: 'begin';
      readonly commitLsn: Lsn;
      readonly commitTimeMicros: bigint;
      readonly xid: number;
    }
  | { readonly kind: 'change'; readonly change: Change; readonly position: Position }
  | { readonly kind: 'label'; readonly label: string }
  /** The read of this id has its position here. */
  | { readonly kind: 'watermark'; readonly id: string }
  /** A user asked here to have all rows of the table read and published again. */
  | { readonly kind: 'resnapshot'; readonly relationId: RelationId }
  | { readonly kind: 'commit'; readonly commitEndLsn: Lsn };

/**
 * From messages to changes with positions: `begin`, then changes with ordinals from 0 upwards and
 * without a gap, then `commit`. A relation's own record comes before its first row in each run.
 */
export interface ChangeBuilder {
  build(message: PgoutputMessage): BuiltEvent[];
  /** Rows of a read, at the position of its watermark. */
  read(read: ObservedRead): BuiltEvent[];
  /** The record after which all rows of the relation follow, or which says that it has ended. */
  resnapshot(relation: RelationShape): BuiltEvent[];
}

/** What was read beside the stream and belongs at the position of its watermark. */
export interface ObservedRead {
  /** A relation whose record has to be in the stream, even if no row was read. */
  readonly relation: RelationShape | null;
  readonly rows: readonly RowChange[];
}

/** What a point says of rows that the topic does not hold whole. */
export type Incomplete = Pick<Point, 'unfinished' | 'unhealed'>;

/**
 * Watches rows on the path, and adds rows that it read itself. The path knows one observer and not
 * its purpose (leader/backfill has the reasons). It is called with each change before its record is
 * in the batch, in WAL order, also with the rows that it added; it never waits and never throws.
 * `previous` is the checkpoint that the open batch continues, or an older one.
 */
export interface RowObserver {
  /** The source transaction `xid` changed a row. */
  row(change: RowChange, xid: number, previous: Checkpoint, position: Position): void;
  truncated(relation: RelationId): void;
  /** All rows of the relation are to be published again. */
  resnapshot(relation: RelationId): void;
  /** The watermark is reached: what has to be published at its position. */
  takeAt(watermark: string, previous: Checkpoint): ObservedRead;
  /** The open batch ends: what its point says. What it no longer names counts as complete. */
  takeForPoint(): Incomplete;
}

export type BatchAction =
  | { readonly kind: 'send'; readonly records: readonly OutgoingRecord[] }
  | {
      readonly kind: 'commit';
      readonly records: readonly OutgoingRecord[];
      readonly point: Point;
    }
  /** Nothing to do before `atMs`; null when only a new event can change that. */
  | { readonly kind: 'wait'; readonly atMs: number | null };

/**
 * What goes into one Kafka transaction, and when it ends: whole source transactions, then one
 * point. `begin`, `add`, `label` and `end` come in WAL order, `next` whenever Kafka is free, and
 * `committed` once Kafka has answered the commit. It acknowledges nothing.
 */
export interface BatchPolicy {
  /** Whether another event may be fed; once it is false, only `next` makes it true again. */
  readonly accepts: boolean;
  /** The checkpoint that the open batch continues, or an older one while that is on its way. */
  readonly previous: Checkpoint;
  begin(commitLsn: Lsn, commitTimeMicros: bigint): void;
  add(records: readonly OutgoingRecord[]): void;
  label(label: string): void;
  end(commitEndLsn: Lsn): void;
  keepalive(walEnd: Lsn): void;
  next(nowMs: number): BatchAction;
  committed(checkpoint: Checkpoint): void;
}

/** Receives what the leader reads back from its own topic. */
export interface ReadBackListener {
  /** Every partition was read as committed up to `at`: what may be confirmed to Postgres. */
  seen(at: EpochLsn): void;
  /** A fetch returned nothing new, after it had waited at the brokers. */
  seenNothing(): void;
}

/** The loop in the middle: the one stage that calls the others, and the one that acknowledges. */
export interface Publisher extends ReadBackListener {
  /** Up to where every partition was read back. */
  readonly seenAt: EpochLsn;
  /** Ends when `signal` aborts, after what is in flight; rejects with the first error. */
  run(signal: AbortSignal): Promise<void>;
  /** Records that are no part of the stream; resolves once they are committed, with a point. */
  publishBeside(records: readonly OutgoingRecord[]): Promise<void>;
}
