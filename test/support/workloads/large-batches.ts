/**
 * Transactions of thousands of rows, all of which carry the number of the transaction: a part of
 * one, or an older one over a newer one, shows as two numbers in one snapshot. For tests that catch
 * a publisher or an applier in the middle of a batch.
 */
import type { Turn, Workload, Written } from './workload.ts';

const rows = 3_000;

async function write({ client, writer, n }: Turn): Promise<Written> {
  // The first row is a lock: writers come one after the other.
  await client.query('SELECT FROM crowd WHERE id = 1 FOR UPDATE');
  await client.query('UPDATE crowd SET turn = turn + 1, filler = $1', [`${writer}.${n}`]);
  return { raises: ['crowd'] };
}

export const largeBatches: Workload = {
  name: 'large batches',
  tableNames: ['crowd'],
  tables: 'CREATE TABLE crowd (id int PRIMARY KEY, turn bigint NOT NULL, filler text NOT NULL)',
  rows: `INSERT INTO crowd SELECT i, 0, '' FROM generate_series(1, ${rows}) i`,
  write,
  wrong: `SELECT format('%s rows, turns %s to %s, fillers %s to %s', count(*), min(turn), max(turn),
      min(filler), max(filler)) AS wrong
    FROM crowd HAVING count(*) <> ${rows} OR min(turn) <> max(turn) OR min(filler) <> max(filler)`,
  climbing: `SELECT 'crowd' AS name, coalesce(max(turn), 0) AS value FROM crowd`,
  counters: `SELECT 'crowd' AS counter, coalesce(max(turn), 0) AS value FROM crowd`,
};
