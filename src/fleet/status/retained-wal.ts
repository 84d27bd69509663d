/**
 * Judges the WAL that a leader's slot keeps on its server. Flows in: what Postgres says of the
 * slot; flows out: a level with one line of cause and its remedy, for the log, `status` and the
 * metrics, and when the log has to hear of it again. Postgres gives a slot up without asking: this
 * is said while there is still time. Pure.
 */
import { bytesText } from '../../change/amounts.ts';
import { slotLostHint } from '../../errors/slot.ts';
import type { SlotWal } from '../../leader/stream/slot.ts';

/** The later, the worse. */
export type RetentionLevel = 'fine' | 'warning' | 'urgent' | 'lost';

export interface Retention {
  readonly level: RetentionLevel;
  readonly message: string;
  readonly hint: string;
}

const ranks: Readonly<Record<RetentionLevel, number>> = { fine: 0, warning: 1, urgent: 2, lost: 3 };

/** Of what Postgres keeps for a slot at most: time to act, and hardly any time left. */
const warningShare = 0.6;
const urgentShare = 0.85;
/** Without a limit only the disk ends it, whose size Postgres does not tell. */
const warningBytes = 10 * 1024 ** 3;
/** A level that was reached is left at a tenth below it, so that it does not flicker. */
const leavingShare = 0.9;

/** `wal` is null where the leader has no slot at all; `before` is the level it had. */
export function judgeRetention(wal: SlotWal | null, before: RetentionLevel = 'fine'): Retention {
  if (wal === null) {
    return lost('its replication slot is gone: what it writes reaches nobody');
  }
  if (wal.walStatus === 'lost') {
    return lost(`its replication slot ${wal.name} has lost WAL: what it writes reaches nobody`);
  }
  const level = levelOf(wal, before);
  const kept = `the slot ${wal.name} keeps ${bytesText(wal.retainedBytes ?? 0)} of WAL`;
  if (level === 'fine') return { level, message: kept, hint: '' };
  const { safeBytes } = wal;
  const end =
    safeBytes === null
      ? 'without a limit, on the disk of the leader'
      : `and is given up after ${bytesText(Math.max(0, safeBytes))} more`;
  return { level, message: `${kept}, ${end}`, hint: remedyOf(wal) };
}

function lost(message: string): Retention {
  return { level: 'lost', message, hint: slotLostHint };
}

function levelOf({ walStatus, retainedBytes, safeBytes }: SlotWal, before: RetentionLevel) {
  // Past the limit already: the next checkpoint takes it.
  if (walStatus === 'unreserved') return 'urgent';
  const retained = retainedBytes ?? 0;
  const reaches = (level: RetentionLevel, size: number, limit: number): boolean =>
    size >= limit * (ranks[before] >= ranks[level] ? leavingShare : 1);
  if (safeBytes === null) return reaches('warning', retained, warningBytes) ? 'warning' : 'fine';
  const share = retained / Math.max(1, retained + safeBytes);
  if (reaches('urgent', share, urgentShare)) return 'urgent';
  return reaches('warning', share, warningShare) ? 'warning' : 'fine';
}

function remedyOf({ active, safeBytes }: SlotWal): string {
  const cause = active
    ? 'The leader’s agent is slower than its writers, or waits for a long transaction: see ' +
      '`understudy status` and pg_stat_activity.'
    : 'Nothing reads it: bring back what the leader’s agent waits for (its log says: Kafka, the ' +
      'registry), or start it: understudy run.';
  if (safeBytes === null) return `${cause} Look at the free space of the disk.`;
  const more = `ALTER SYSTEM SET max_slot_wal_keep_size = '…'; SELECT pg_reload_conf();`;
  return `${cause} For more time, if the disk has room: ${more}`;
}

/** How often an unchanged level is said again: an outage that lasts must not scroll away. */
const repeatMs: Readonly<Record<RetentionLevel, number>> = {
  fine: Number.POSITIVE_INFINITY,
  warning: 300_000,
  urgent: 60_000,
  lost: 300_000,
};

/** What the log has heard so far. */
export class RetentionReports {
  #level: RetentionLevel = 'fine';
  #saidMs = 0;

  get level(): RetentionLevel {
    return this.#level;
  }

  /** What to say now: a change of the level, or one that has lasted; null is nothing. */
  next(wal: SlotWal | null, nowMs: number): Retention | null {
    const retention = judgeRetention(wal, this.#level);
    const isNews = retention.level !== this.#level;
    if (!isNews && nowMs - this.#saidMs < repeatMs[retention.level]) return null;
    this.#level = retention.level;
    this.#saidMs = nowMs;
    return retention;
  }
}
