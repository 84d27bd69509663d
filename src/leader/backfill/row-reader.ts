/**
 * Reads rows in one short transaction that leaves a watermark in the WAL. Flows in: a table, and
 * keys or the key after which to continue; flows out: the snapshot and the rows, before the
 * watermark. The lock comes before the snapshot: a snapshot that is older than a wait for ALTER
 * TABLE or TRUNCATE would see an empty table. The lock also blocks both until the watermark; the
 * wait for it is short.
 */
import { type Client, DatabaseError } from 'pg';
import { type KeyedTable, quotedTable, rowsByKeySql } from '../../catalog/key-lookup.ts';
import { inTransaction } from '../../catalog/postgres-session.ts';
import type { PgText, RowKey } from '../../change/change.ts';
import { tableChanged } from '../../errors/table.ts';
import { hit } from '../../failpoints.ts';
import { watermarkPrefix } from '../stream/transaction-builder.ts';
import type { ReadableTable } from '../tables/known-tables.ts';
import type { ReadRow } from './row-overlay.ts';
import { parseSnapshot, type Snapshot } from './snapshot.ts';

interface RowsRead {
  readonly snapshot: Snapshot;
  /** The keys that were read, from the first on: not all where their rows are large. */
  readonly rows: readonly { readonly key: RowKey; readonly row: ReadRow | null }[];
}

const lockTimeoutMs = 500;
/** Bounds what is held in memory between read and watermark, except for the last row. */
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
  await readWithWatermark(client, table, id, async (snapshot) => {
    onRead({ snapshot, rows: await fetchRows(client, table.keyed, keys) });
    await hit('heal.after-read');
    return true;
  });
}

/** No watermark is written where `read` returns false: what it read cannot be used. */
export async function readWithWatermark(
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
      if (Number(rows[0]?.oid) !== table.oid) {
        const { schema, name: called } = table.keyed;
        throw tableChanged(`${schema}.${called}`, 'it was dropped and re-created');
      }
      if (!(await read(parseSnapshot(rows[0]?.snapshot ?? '')))) return;
      await client.query('SELECT pg_catalog.pg_logical_emit_message(true, $1, $2)', [
        watermarkPrefix,
        id,
      ]);
    },
    'REPEATABLE READ',
  );
}

/**
 * Whether the table or a row caused the error, so that a later read may succeed. Whether the table
 * still is what the stream knows is checked elsewhere.
 */
export function isPassing(error: unknown): boolean {
  return error instanceof DatabaseError && !/^(08|25P|57)/.test(error.code ?? '08');
}

/** Whether it is a lock that was not granted in time, or a deadlock. */
export function isBusy(error: unknown): boolean {
  return error instanceof DatabaseError && /^(55P03|40)/.test(error.code ?? '');
}

/** A transaction id that is assigned now: all transactions before it have a lower one. */
export async function nextTransactionId(client: Client): Promise<bigint> {
  const { rows } = await client.query<{ id: string }>(
    'SELECT pg_catalog.pg_current_xact_id() AS id',
  );
  return BigInt(rows[0]?.id ?? '0');
}

/** The oldest transaction that is still running: all below have ended. */
export async function oldestRunning(client: Client): Promise<bigint> {
  const { rows } = await client.query<{ id: string }>(
    'SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()) AS id',
  );
  return BigInt(rows[0]?.id ?? '0');
}

/** Reads key after key, until the bound of memory is reached. */
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
    const found = new Map(rows.map(([ordinal, ...values]) => [Number(ordinal) - 1, values]));
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
