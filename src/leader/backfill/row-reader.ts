/**
 * Reads rows in one short transaction that leaves a watermark in the WAL. Flows in: a table, and
 * keys or the key to go on after; flows out: the snapshot and the rows, before the watermark. The
 * lock comes before the snapshot: one that is older than a wait behind ALTER TABLE or TRUNCATE
 * would see an empty table. The lock also keeps both out until the watermark, and is waited for
 * only briefly.
 */
import { type Client, DatabaseError } from 'pg';
import { type KeyedTable, quotedTable, rowsByKeySql } from '../../catalog/key-lookup.ts';
import { inTransaction } from '../../catalog/postgres-session.ts';
import type { PgText, RelationShape } from '../../change/change.ts';
import { UnderstudyError } from '../../errors/understudy-error.ts';
import { hit } from '../../failpoints.ts';
import type { ReadRow, RowKey } from './row-overlay.ts';
import { parseSnapshot, type Snapshot } from './snapshot.ts';

/** The prefix of the logical message that says where in the WAL a read stands. */
export const watermarkPrefix = 'understudy.watermark';

/** A table of the stream, as it is read here. */
export interface ReadableTable {
  readonly oid: number;
  readonly shape: RelationShape;
  readonly keyed: KeyedTable;
  /** Whether equal keys always have the same text. */
  readonly hasOneSpelling: boolean;
}

interface RowsRead {
  readonly snapshot: Snapshot;
  /** Of as many of the keys as were read, in their order. */
  readonly rows: readonly { readonly key: RowKey; readonly row: ReadRow | null }[];
}

const lockTimeoutMs = 500;
/** What is held in memory between read and watermark, but for the last row. */
const bytesMax = 8 * 1024 * 1024;
const fetchRowsMax = 200;

/** `onRead` is called inside the transaction, before the watermark `id` is written. */
export async function readRows(
  client: Client,
  table: Pick<ReadableTable, 'oid' | 'keyed'>,
  keys: readonly RowKey[],
  id: string,
  onRead: (read: RowsRead) => void,
): Promise<void> {
  await readMarked(client, table, id, async (snapshot) => {
    onRead({ snapshot, rows: await fetchRows(client, table.keyed, keys) });
    await hit('heal.after-read');
    return true;
  });
}

/** Without a watermark where `read` says that what it read is of no use. */
export async function readMarked(
  client: Client,
  table: Pick<ReadableTable, 'oid' | 'keyed'>,
  id: string,
  read: (snapshot: Snapshot) => Promise<boolean>,
): Promise<void> {
  await inTransaction(
    client,
    async () => {
      const name = quotedTable(table.keyed);
      await client.query(`SET LOCAL lock_timeout = ${lockTimeoutMs}`);
      await client.query(`LOCK TABLE ONLY ${name} IN ACCESS SHARE MODE`);
      const { rows } = await client.query<{ snapshot: string; oid: string }>(
        `SELECT pg_catalog.pg_current_snapshot() AS snapshot,
           $1::pg_catalog.regclass::pg_catalog.oid AS oid`,
        [name],
      );
      if (Number(rows[0]?.oid) !== table.oid) throw otherTable(table.keyed);
      if (!(await read(parseSnapshot(rows[0]?.snapshot ?? '')))) return;
      await client.query('SELECT pg_catalog.pg_logical_emit_message(true, $1, $2)', [
        watermarkPrefix,
        id,
      ]);
    },
    'REPEATABLE READ',
  );
}

/** Of the table or of a row: the stream looks itself whether the table is as it was. */
export function isPassing(error: unknown): boolean {
  return error instanceof DatabaseError && !/^(08|57)/.test(error.code ?? '08');
}

/** A lock that was not to be had in time, or a deadlock. */
export function isBusy(error: unknown): boolean {
  return error instanceof DatabaseError && /^(55P03|40)/.test(error.code ?? '');
}

/** A transaction id that was given now: all transactions before it have a lower one. */
export async function nextTransactionId(client: Client): Promise<bigint> {
  const { rows } = await client.query<{ id: string }>(
    'SELECT pg_catalog.pg_current_xact_id() AS id',
  );
  return BigInt(rows[0]?.id ?? '0');
}

/** The oldest transaction that still runs: all below have ended. */
export async function oldestRunning(client: Client): Promise<bigint> {
  const { rows } = await client.query<{ id: string }>(
    'SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()) AS id',
  );
  return BigInt(rows[0]?.id ?? '0');
}

/** Key after key, until enough is held. */
async function fetchRows(
  client: Client,
  table: KeyedTable,
  keys: readonly RowKey[],
): Promise<RowsRead['rows']> {
  const read: { key: RowKey; row: ReadRow | null }[] = [];
  const columns = [...table.columns.keys()];
  let bytes = 0;
  for (let next = 0, count = 1; next < keys.length && bytes < bytesMax; ) {
    const part = keys.slice(next, next + count);
    const { rows } = await client.query<PgText[]>({
      text: rowsByKeySql(table, columns),
      values: table.identity.map((_, k) => part.map(({ identity }) => identity[k] ?? null)),
      rowMode: 'array',
    });
    const found = new Map(rows.map(([place, ...values]) => [Number(place) - 1, values]));
    for (const [i, key] of part.entries()) {
      const values = found.get(i);
      read.push({ key, row: values === undefined ? null : readRow(table, values) });
      bytes += (values ?? []).reduce((sum, value) => sum + (value?.length ?? 0), 0);
    }
    next += part.length;
    const each = Math.max(1, bytes / next);
    count = Math.max(1, Math.min(fetchRowsMax, Math.floor((bytesMax - bytes) / each), count * 4));
  }
  return read;
}

export function readRow(table: KeyedTable, values: readonly PgText[]): ReadRow {
  return { identity: table.identity.map((index) => values[index] ?? ''), values };
}

function otherTable({ schema, name }: KeyedTable): UnderstudyError {
  return new UnderstudyError(
    'SCHEMA_CHANGED',
    `${schema}.${name} is another table than the one in the stream`,
    'Schema changes are not replicated in this version: destroy the cluster and init it again.',
  );
}
