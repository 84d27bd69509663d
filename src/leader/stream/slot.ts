/**
 * The leader's replication slot: reads it, creates and drops it, and checks it against the topic.
 * A slot is created at a known consistent point. Creating one waits for every open transaction of
 * the server, so it is bounded, and what a creation that timed out may leave behind is dropped: an
 * orphan would keep WAL until the disk is full.
 */
import type { Client } from 'pg';
import { quoteIdentifier } from '../../catalog/postgres-session.ts';
import { createWithin } from '../../catalog/slot-creation.ts';
import { formatLsn, type Lsn, parseLsn } from '../../change/lsn.ts';
import { slotAhead, slotLost, slotMissing, slotOfOtherPlugin } from '../../errors/slot.ts';
import { slotNotReady } from '../../errors/timed-out.ts';

export interface SlotState {
  readonly name: string;
  readonly plugin: string | null;
  readonly active: boolean;
  readonly confirmedFlushLsn: Lsn;
  /** reserved, extended, unreserved or lost. */
  readonly walStatus: string;
}

interface SlotRow {
  slot_name: string;
  plugin: string | null;
  active: string;
  confirmed_flush_lsn: string | null;
  wal_status: string | null;
}

const slotColumns = 'slot_name, plugin, active, confirmed_flush_lsn, wal_status';

export async function readSlot(client: Client, name: string): Promise<SlotState | null> {
  const { rows } = await client.query<SlotRow>(
    `SELECT ${slotColumns} FROM pg_catalog.pg_replication_slots WHERE slot_name = $1`,
    [name],
  );
  const row = rows[0];
  if (row === undefined) return null;
  return {
    name: row.slot_name,
    plugin: row.plugin,
    active: row.active === 't',
    confirmedFlushLsn: parseLsn(row.confirmed_flush_lsn ?? '0/0'),
    walStatus: row.wal_status ?? 'lost',
  };
}

/** Names of the slots in the database of the session that match `slotPattern`. */
export async function listSlots(client: Client, pattern: string): Promise<string[]> {
  const { rows } = await client.query<{ slot_name: string }>(
    `SELECT slot_name FROM pg_catalog.pg_replication_slots
     WHERE database = current_database() AND slot_name ~ $1 ORDER BY slot_name`,
    [pattern],
  );
  return rows.map((row) => row.slot_name);
}

/** The one of the newest epoch up to `epoch`: the slot with which a node last led. */
export function newestSlot(slots: readonly string[], epoch: number): string | null {
  const numbered = slots
    .map((slot) => ({ slot, epoch: Number(slot.slice(slot.lastIndexOf('_') + 1)) }))
    .filter((candidate) => candidate.epoch <= epoch)
    .sort((a, b) => b.epoch - a.epoch);
  return numbered[0]?.slot ?? null;
}

/** How much WAL a slot keeps, and how much more before Postgres invalidates it. */
export interface SlotWal {
  readonly name: string;
  readonly active: boolean;
  /** reserved, extended, unreserved or lost. */
  readonly walStatus: string;
  /** Kept on the server's disk because of this slot; null once the slot is lost. */
  readonly retainedBytes: number | null;
  /** The part of it that was not confirmed: the topic does not have it yet. */
  readonly unconfirmedBytes: number | null;
  /** What may still be written before the slot may be lost; null is no limit. */
  readonly safeBytes: number | null;
}

/** Of the slots in the database of the session that match `slotPattern`, the newest first. */
export async function readSlotWal(client: Client, pattern: string): Promise<SlotWal[]> {
  const { rows } = await client.query<{
    name: string;
    active: string;
    wal_status: string;
    retained: string | null;
    unconfirmed: string | null;
    safe: string | null;
  }>(
    `SELECT slot_name AS name, active, coalesce(wal_status, 'lost') AS wal_status,
            pg_catalog.pg_wal_lsn_diff(wal.flushed, restart_lsn) AS retained,
            pg_catalog.pg_wal_lsn_diff(wal.flushed, confirmed_flush_lsn) AS unconfirmed,
            safe_wal_size AS safe
     FROM pg_catalog.pg_replication_slots, (SELECT CASE WHEN pg_catalog.pg_is_in_recovery()
       THEN NULL ELSE pg_catalog.pg_current_wal_flush_lsn() END AS flushed) AS wal
     WHERE database = pg_catalog.current_database() AND slot_name ~ $1
     ORDER BY pg_catalog.length(slot_name) DESC, slot_name DESC`,
    [pattern],
  );
  return rows.map((row) => {
    // A lost slot still has LSNs, but no WAL that could be read.
    const isLost = row.wal_status === 'lost';
    return {
      name: row.name,
      active: row.active === 't',
      walStatus: row.wal_status,
      retainedBytes: isLost ? null : bytesOf(row.retained),
      unconfirmedBytes: bytesOf(row.unconfirmed),
      safeBytes: bytesOf(row.safe),
    };
  });
}

/** A slot without a reader, in whichever database of the server. */
export interface IdleSlot {
  readonly name: string;
  readonly database: string;
  /** Kept on the server's disk because of this slot; null once the slot is lost. */
  readonly retainedBytes: number | null;
}

/** Those that match `slotPattern`, in all databases of the server. */
export async function readIdleSlots(client: Client, pattern: string): Promise<IdleSlot[]> {
  const { rows } = await client.query<{ name: string; database: string; retained: string | null }>(
    `SELECT slot_name AS name, database, CASE WHEN wal_status = 'lost'
              OR pg_catalog.pg_is_in_recovery() THEN NULL
            ELSE pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_flush_lsn(), restart_lsn)
            END AS retained
     FROM pg_catalog.pg_replication_slots
     WHERE NOT active AND database IS NOT NULL AND slot_name ~ $1 ORDER BY slot_name`,
    [pattern],
  );
  return rows.map(({ name, database, retained }) => {
    return { name, database, retainedBytes: bytesOf(retained) };
  });
}

function bytesOf(text: string | null): number | null {
  return text === null ? null : Number(text);
}

/** Creates a logical slot and returns its consistent point, within `timeoutMs` or not at all. */
export async function createSlot(
  maker: Client,
  control: Client,
  name: string,
  timeoutMs: number,
): Promise<Lsn> {
  const { rows } = await boundedCreation(maker, control, name, { timeoutMs }, () =>
    maker.query<{ lsn: string }>(
      `SELECT lsn FROM pg_catalog.pg_create_logical_replication_slot($1, 'pgoutput')`,
      [name],
    ),
  );
  return parseLsn(rows[0]?.lsn ?? '');
}

type CreationLimits = Pick<
  Parameters<typeof createWithin>[0],
  'timeoutMs' | 'signal' | 'onWaiting'
>;

interface ExportedSlot {
  readonly consistentPoint: Lsn;
  /** For SET TRANSACTION SNAPSHOT, until `walsender` runs its next command or ends. */
  readonly snapshot: string;
}

/** The same over a walsender connection, with the snapshot of exactly what is below the point. */
export async function createExportedSlot(
  walsender: Client,
  control: Client,
  name: string,
  limits: CreationLimits,
): Promise<ExportedSlot> {
  const { rows } = await boundedCreation(walsender, control, name, limits, () =>
    walsender.query<{ consistent_point: string; snapshot_name: string }>(
      `CREATE_REPLICATION_SLOT ${quoteIdentifier(name)} LOGICAL pgoutput (SNAPSHOT 'export')`,
    ),
  );
  const consistentPoint = parseLsn(rows[0]?.consistent_point ?? '');
  return { consistentPoint, snapshot: rows[0]?.snapshot_name ?? '' };
}

/** Rejects with TIMED_OUT after `timeoutMs`, and leaves no slot behind. */
async function boundedCreation<Result>(
  maker: Client,
  control: Client,
  name: string,
  limits: CreationLimits,
  create: () => Promise<Result>,
): Promise<Result> {
  const { timeoutMs } = limits;
  return createWithin({
    ...{ creator: maker, control, create, ...limits },
    discard: () => dropSlot(control, name),
    timedOut: (blockers) => slotNotReady(name, timeoutMs, blockers),
  });
}

/**
 * Drops a slot of ours, if it exists. The backend that holds it is ended first: a creation that
 * outlived its client, or the walsender of a dead connection.
 */
export async function dropSlot(client: Client, name: string): Promise<void> {
  await client.query(
    `SELECT pg_catalog.pg_terminate_backend(active_pid, 5000)
     FROM pg_catalog.pg_replication_slots WHERE slot_name = $1 AND active_pid IS NOT NULL`,
    [name],
  );
  await client.query(
    `SELECT pg_catalog.pg_drop_replication_slot(slot_name)
     FROM pg_catalog.pg_replication_slots WHERE slot_name = $1`,
    [name],
  );
}

/** What must hold before streaming starts at `start`: Postgres itself would start elsewhere. */
export function checkSlot(slot: SlotState | null, name: string, start: Lsn): void {
  if (slot === null) throw slotMissing(name);
  if (slot.walStatus === 'lost') throw slotLost(name);
  if (slot.plugin !== 'pgoutput') throw slotOfOtherPlugin(name, slot.plugin);
  // rule: slot-not-ahead-of-log
  if (slot.confirmedFlushLsn > start) {
    throw slotAhead(name, formatLsn(slot.confirmedFlushLsn), formatLsn(start));
  }
}
