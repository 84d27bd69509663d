/**
 * Judges the WAL that a leader's slot keeps on its server, from what Postgres reports of the slot:
 * a level with one line of cause and its remedy, for the log and `status`, and when it has to be
 * logged again. Postgres invalidates a slot without asking: these reports come before that. The
 * database alone is read, so this works while the agent or Kafka is down. Pure.
 */
import { bytesText } from '../../change/amounts.ts';
import { slotLostHint } from '../../errors/slot.ts';
import type { IdleSlot, SlotWal } from '../../leader/stream/slot.ts';
import type { DatabaseFacts, FleetFacts } from './fleet-facts.ts';
import type { SlotStatus } from './node-status.ts';

/** In ascending order. */
export type RetentionLevel = 'fine' | 'warning' | 'urgent' | 'lost';

export interface Retention {
  readonly level: RetentionLevel;
  readonly message: string;
  readonly hint: string;
}

const ranks: Readonly<Record<RetentionLevel, number>> = { fine: 0, warning: 1, urgent: 2, lost: 3 };

/** Of the WAL that Postgres keeps for a slot at most: time to act, and hardly any time left. */
const warningShare = 0.6;
const urgentShare = 0.85;
/** Without a limit only the disk is one, whose size Postgres does not report. */
const warningBytes = 10 * 1024 ** 3;
/** A level that was reached ends a tenth below it, so that it does not flicker. */
const leavingShare = 0.9;

/** `wal` is null where the leader has no slot at all; `before` is the level it had. */
export function judgeRetention(wal: SlotWal | null, before: RetentionLevel = 'fine'): Retention {
  if (wal === null) {
    return lost('its replication slot is missing: its writes are not published');
  }
  if (wal.walStatus === 'lost') {
    return lost(`its replication slot ${wal.name} has lost WAL: its writes are not published`);
  }
  const level = levelOf(wal, before);
  const kept = `the slot ${wal.name} keeps ${bytesText(wal.retainedBytes ?? 0)} of WAL`;
  if (level === 'fine') return { level, message: kept, hint: '' };
  const { safeBytes } = wal;
  const end =
    safeBytes === null
      ? 'without a limit, on the disk of the leader'
      : `and is invalidated after ${bytesText(Math.max(0, safeBytes))} more`;
  return { level, message: `${kept}, ${end}`, hint: remedyOf(wal) };
}

function lost(message: string): Retention {
  return { level: 'lost', message, hint: slotLostHint };
}

function levelOf({ walStatus, retainedBytes, safeBytes }: SlotWal, before: RetentionLevel) {
  // Past the limit already: the next checkpoint of Postgres removes it.
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
    : 'Nothing reads it: restore the server that the leader’s agent waits for (its log names it: ' +
      'Kafka, the registry), or start the agent: `understudy run <node>`.';
  if (safeBytes === null) return `${cause} Check the free space of the disk.`;
  const more =
    "`ALTER SYSTEM SET max_slot_wal_keep_size = '<size>';` " + '`SELECT pg_reload_conf();`';
  return `${cause} For more time, if the disk has room: ${more}`;
}

/** How often an unchanged level is logged again, so that a lasting outage stays visible. */
const repeatMs: Readonly<Record<RetentionLevel, number>> = {
  fine: Number.POSITIVE_INFINITY,
  warning: 300_000,
  urgent: 60_000,
  lost: 300_000,
};

/** When to log a level: at each change, and repeatedly while it lasts. */
export class RetentionReports {
  #level: RetentionLevel = 'fine';
  #loggedMs = 0;

  get level(): RetentionLevel {
    return this.#level;
  }

  /** The report to log now: of a changed level, or of one that lasts; null is none. */
  next(wal: SlotWal | null, nowMs: number): Retention | null {
    const retention = judgeRetention(wal, this.#level);
    const isChanged = retention.level !== this.#level;
    if (!isChanged && nowMs - this.#loggedMs < repeatMs[retention.level]) return null;
    this.#level = retention.level;
    this.#loggedMs = nowMs;
    return retention;
  }
}

/** Usual is less: a few batches on their way, and writes since the last poll of the slot. */
const unpublishedBytesMax = 16 * 1024 * 1024;

interface SlotReport {
  readonly status: SlotStatus | null;
  /** For a leader: why the stream has ended, whether or not an agent has met it. */
  readonly lost: readonly string[];
  /** The WAL that is not published yet, when it is more than usual. */
  readonly backlog: readonly string[];
  /** How long Postgres keeps that WAL, when that is in doubt. */
  readonly retention: readonly string[];
  /** For a node that led before: its slot has no reader. */
  readonly left: readonly string[];
}

/** `slots` are those of this cluster on the node, the newest epoch's first. */
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
    backlog: isBehind ? [`${bytesText(unpublished)} of its WAL is not in the topic yet`] : [],
    retention: level === 'fine' ? [] : [message],
    left: [`its slot keeps ${kept} of WAL and has no reader: drop the slot ${slot.name} there`],
  };
}

/** Slots of nodes that had another database on this server, a former leader's above all. */
export function slotsLeftOn(
  nodes: FleetFacts['nodes'],
  { reached, slotsElsewhere = [] }: DatabaseFacts,
): string[] {
  const used = nodes.flatMap(({ database }) => {
    const other = database.kind === 'found' ? database.value.reached : undefined;
    return other !== undefined && other.systemId === reached?.systemId ? [other.name] : [];
  });
  return slotsElsewhere.filter(({ database }) => !used.includes(database)).map(leftSlotText);
}

/** Of a database that is no node any more. `check` shows it too. */
export function leftSlotText({ name, database, retainedBytes }: IdleSlot): string {
  const kept =
    retainedBytes === null ? 'has lost its WAL' : `keeps ${bytesText(retainedBytes)} of WAL`;
  return `the slot ${name} in the database ${database} of its server ${kept}, and no node uses it`;
}

function slotStatusOf(slot: SlotWal): SlotStatus {
  const { name, walStatus, retainedBytes, unconfirmedBytes, safeBytes } = slot;
  return { name, walStatus, retainedBytes, unpublishedBytes: unconfirmedBytes, safeBytes };
}
