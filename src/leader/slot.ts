/**
 * The leader's replication slot. Flows in: a session on the leader's database; flows out: what the
 * slot is like, and slots created or dropped. A slot is made at a known consistent point; creating
 * waits for every open transaction of the server, so it is bounded, and what a timed-out creation
 * may leave behind is looked up and dropped: an orphan would fill the disk.
 */
import type { Client } from 'pg';
import { quoteIdentifier } from '../catalog/postgres-session.ts';
import { createWithin } from '../catalog/slot-creation.ts';
import { type Lsn, parseLsn } from '../change/lsn.ts';
import { UnderstudyError } from '../errors.ts';

export interface SlotState {
  readonly name: string;
  readonly plugin: string | null;
  readonly active: boolean;
  readonly confirmedFlush: Lsn;
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
    confirmedFlush: parseLsn(row.confirmed_flush_lsn ?? '0/0'),
    walStatus: row.wal_status ?? 'lost',
  };
}

/** Names of this cluster's slots in the database of the session. */
export async function listSlots(client: Client, prefix: string): Promise<string[]> {
  const { rows } = await client.query<{ slot_name: string }>(
    `SELECT slot_name FROM pg_catalog.pg_replication_slots
     WHERE database = current_database() AND starts_with(slot_name, $1) ORDER BY slot_name`,
    [prefix],
  );
  return rows.map((row) => row.slot_name);
}

/** Creates a logical slot and gives its consistent point, within `timeoutMs` or not at all. */
export async function createSlot(
  maker: Client,
  control: Client,
  name: string,
  timeoutMs: number,
): Promise<Lsn> {
  const { rows } = await boundedCreation(maker, control, name, timeoutMs, () =>
    maker.query<{ lsn: string }>(
      `SELECT lsn FROM pg_catalog.pg_create_logical_replication_slot($1, 'pgoutput')`,
      [name],
    ),
  );
  return parseLsn(rows[0]?.lsn ?? '');
}

export interface ExportedSlot {
  readonly consistentPoint: Lsn;
  /** For SET TRANSACTION SNAPSHOT, until `walsender` runs its next command or ends. */
  readonly snapshot: string;
}

/** The same over a walsender connection, with the snapshot of exactly what is below the point. */
export async function createExportedSlot(
  walsender: Client,
  control: Client,
  name: string,
  timeoutMs: number,
): Promise<ExportedSlot> {
  const { rows } = await boundedCreation(walsender, control, name, timeoutMs, () =>
    walsender.query<{ consistent_point: string; snapshot_name: string }>(
      `CREATE_REPLICATION_SLOT ${quoteIdentifier(name)} LOGICAL pgoutput (SNAPSHOT 'export')`,
    ),
  );
  const consistentPoint = parseLsn(rows[0]?.consistent_point ?? '');
  return { consistentPoint, snapshot: rows[0]?.snapshot_name ?? '' };
}

/** Rejects with TIMED_OUT after `timeoutMs`, leaving nothing behind. */
async function boundedCreation<Result>(
  maker: Client,
  control: Client,
  name: string,
  timeoutMs: number,
  create: () => Promise<Result>,
): Promise<Result> {
  return createWithin({
    ...{ maker, control, create, timeoutMs },
    discard: () => dropSlot(control, name),
    late: (blockers) => {
      return new UnderstudyError(
        'TIMED_OUT',
        `the slot ${name} was not ready within ${timeoutMs} ms: creating one waits for every ` +
          `open transaction of the server (${blockers})`,
        'End those transactions (SELECT pg_terminate_backend(pid)) and try again.',
      );
    },
  });
}

/**
 * Drops a slot of ours, if it is there. Whoever holds it, a creation that outlived its client or
 * the walsender of a dead connection, is ended first.
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

/** What must hold before streaming starts at `start`; Postgres itself would start elsewhere. */
export function checkSlot(slot: SlotState | null, name: string, start: Lsn): void {
  const remedy = 'The stream cannot go on from this slot: destroy the cluster and init it again.';
  if (slot === null) {
    throw new UnderstudyError('SLOT_MISMATCH', `the replication slot ${name} is gone`, remedy);
  }
  if (slot.walStatus === 'lost') {
    throw new UnderstudyError(
      'SLOT_MISMATCH',
      `the replication slot ${name} has lost its WAL (max_slot_wal_keep_size)`,
      remedy,
    );
  }
  if (slot.plugin !== 'pgoutput') {
    throw new UnderstudyError(
      'SLOT_MISMATCH',
      `the replication slot ${name} decodes with ${slot.plugin ?? 'nothing'}, not pgoutput`,
      remedy,
    );
  }
  if (slot.confirmedFlush > start) {
    throw new UnderstudyError(
      'SLOT_MISMATCH',
      `the replication slot ${name} is ahead of the topic: what lies between is in neither`,
      remedy,
    );
  }
}
