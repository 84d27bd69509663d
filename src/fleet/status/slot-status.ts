/**
 * What `status` says of a node's slot: seen from its database alone, so also while the agent or
 * Kafka is away. Flows in: this cluster's slots there, the newest epoch's first; flows out: the
 * member of the JSON, and reasons for people. Pure.
 */
import { bytesText } from '../../change/amounts.ts';
import type { SlotWal } from '../../leader/stream/slot.ts';
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

/** The usual: a few batches on their way, and what the server wrote since the last look. */
const unpublishedBytesMax = 16 * 1024 * 1024;

interface SlotReport {
  readonly status: SlotStatus | null;
  /** Of a leader: the end of its stream, whether or not an agent has met it. */
  readonly lost: readonly string[];
  /** How far the topic is behind its WAL, when that is more than usual. */
  readonly backlog: readonly string[];
  /** How long Postgres will have what waits, when that is in doubt. */
  readonly retention: readonly string[];
  /** Of a node that led: nobody will ever read it. */
  readonly left: readonly string[];
}

export function slotReport([slot]: readonly SlotWal[]): SlotReport {
  const { level, message } = judgeRetention(slot ?? null);
  if (slot === undefined || level === 'lost') {
    const status = slot === undefined ? null : slotStatusOf(slot);
    return { status, lost: [message], backlog: [], retention: [], left: [] };
  }
  const unpublished = slot.unconfirmedBytes ?? 0;
  const isBehind = unpublished >= unpublishedBytesMax;
  const kept = bytesText(slot.retainedBytes ?? 0);
  return {
    status: slotStatusOf(slot),
    lost: [],
    backlog: isBehind ? [`the topic lacks ${bytesText(unpublished)} of its WAL`] : [],
    retention: level === 'fine' ? [] : [message],
    left: [`its slot keeps ${kept} of WAL for nobody: drop the slot ${slot.name} there`],
  };
}

function slotStatusOf(slot: SlotWal): SlotStatus {
  const { name, walStatus, retainedBytes, unconfirmedBytes, safeBytes } = slot;
  return { name, walStatus, retainedBytes, unpublishedBytes: unconfirmedBytes, safeBytes };
}
