/**
 * What `status` says of a node's slot: seen from its database alone, so also while the agent or
 * Kafka is away. Flows in: this cluster's slots there, the newest epoch's first; flows out: the
 * member of the JSON, and reasons for people. Pure.
 */
import { bytesText } from '../change/byte-size.ts';
import type { SlotWal } from '../leader/slot.ts';
import { judgeRetention } from './retained-wal.ts';

export interface SlotStatus {
  readonly name: string;
  /** reserved, extended, unreserved or lost, as in pg_replication_slots. */
  readonly walStatus: string;
  readonly retainedBytes: number | null;
  /** What the topic does not have yet. */
  readonly unpublishedBytes: number | null;
  /** What may be written before Postgres gives the slot up; null is no limit. */
  readonly safeBytes: number | null;
}

type Slots = readonly SlotWal[];

/** The usual: a few batches on their way, and what the server wrote since the last look. */
const unpublishedBytesMax = 16 * 1024 * 1024;

export function slotStatus([slot]: Slots): SlotStatus | null {
  if (slot === undefined) return null;
  const { name, walStatus, retainedBytes, unconfirmedBytes, safeBytes } = slot;
  return { name, walStatus, retainedBytes, unpublishedBytes: unconfirmedBytes, safeBytes };
}

/** Of a leader: the end of its stream, whether or not an agent has met it. */
export function lostSlotOf([slot]: Slots): string[] {
  const { level, message } = judgeRetention(slot ?? null);
  return level === 'lost' ? [message] : [];
}

/** Of a leader: how far the topic is behind its WAL, when that is more than usual. */
export function backlogOf([slot]: Slots): string[] {
  const unpublished = slot === undefined || slot.walStatus === 'lost' ? 0 : slot.unconfirmedBytes;
  if (unpublished === null || unpublished < unpublishedBytesMax) return [];
  return [`the topic lacks ${bytesText(unpublished)} of its WAL`];
}

/** Of a leader: how long Postgres will have what waits, when that is in doubt. */
export function retentionOf([slot]: Slots): string[] {
  if (slot === undefined || slot.walStatus === 'lost') return [];
  const { level, message } = judgeRetention(slot);
  return level === 'fine' ? [] : [message];
}

/** Of a node that led: nobody will ever read it. */
export function leftSlotOf([slot]: Slots): string[] {
  if (slot === undefined || slot.walStatus === 'lost') return [];
  const kept = bytesText(slot.retainedBytes ?? 0);
  return [`its slot keeps ${kept} of WAL for nobody: drop the slot ${slot.name} there`];
}
