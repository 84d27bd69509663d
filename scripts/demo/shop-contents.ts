/**
 * The full contents of a node's shop, read by plain SQL without Understudy: every order with the
 * count of its lines, or a digest of every table, by which two nodes are compared independently of
 * `understudy verify`.
 */
import type { Client } from 'pg';
import type { FoundOrder } from './proof-orders.ts';

export interface TableDigest {
  readonly table: string;
  readonly rows: number;
  readonly digest: string;
}

/** No index may be used: it could hide a second row of the same key. */
const withoutIndexes = [
  'SET LOCAL enable_indexscan = off',
  'SET LOCAL enable_indexonlyscan = off',
  'SET LOCAL enable_bitmapscan = off',
];

export async function readOrders(client: Client): Promise<readonly FoundOrder[]> {
  return inSnapshot(client, async () => {
    const { rows } = await client.query<FoundOrder>(
      `SELECT o.id AS "orderId", o.status, count(l.order_id)::int AS lines,
         coalesce(sum(l.quantity), 0)::int AS pieces,
         coalesce(sum(l.quantity * l.price), 0.00)::text AS total
       FROM orders o LEFT JOIN order_lines l ON l.order_id = o.id
       GROUP BY o.ctid, o.id, o.status`,
    );
    return rows;
  });
}

/** Rows in the order of their keys, by the C locale, so that equal contents have equal digests. */
const keys: Readonly<Record<string, string>> = {
  customers: 't.id',
  stock: 't.sku COLLATE "C"',
  orders: 't.id',
  order_lines: 't.order_id, t.line_no',
};

export async function readDigests(client: Client): Promise<readonly TableDigest[]> {
  return inSnapshot(client, async () => {
    const digests: TableDigest[] = [];
    for (const [table, key] of Object.entries(keys)) {
      const { rows } = await client.query<{ rows: string; digest: string | null }>(
        `SELECT count(*) AS rows, md5(string_agg(md5(t::text), '' ORDER BY ${key})) AS digest
         FROM ONLY ${table} t`,
      );
      digests.push({ table, rows: Number(rows[0]?.rows), digest: rows[0]?.digest ?? 'empty' });
    }
    return digests;
  });
}

async function inSnapshot<Result>(client: Client, read: () => Promise<Result>): Promise<Result> {
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
  await client.query("SET LOCAL TimeZone = 'UTC'");
  for (const setting of withoutIndexes) await client.query(setting);
  const result = await read();
  await client.query('COMMIT');
  return result;
}
