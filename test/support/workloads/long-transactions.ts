/**
 * Transactions that stay open while many others commit, with nested subtransactions of which some
 * are rolled back, and some that are rolled back as a whole. What was rolled back carries a
 * checkpoint that no node and no committed record may ever show; what was kept is there whole.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { between } from '../seed.ts';
import { neverMark, type Turn, type Workload, type Written } from './workload.ts';

const openMsMax = 250;

async function insert(client: pg.Client, id: string, checkpoint: string): Promise<void> {
  await client.query('INSERT INTO ghost VALUES ($1, $2)', [id, checkpoint]);
}

/** Rows and a change of the kept row that are undone, one level inside of another. */
async function undone(client: pg.Client, id: string): Promise<void> {
  await client.query('SAVEPOINT outer_one');
  await insert(client, `${id}.x`, neverMark);
  await client.query('SAVEPOINT inner_one');
  await insert(client, `${id}.y`, neverMark);
  await client.query('UPDATE ghost SET checkpoint = $2 WHERE id = $1', [`${id}.0`, neverMark]);
  await client.query('RELEASE SAVEPOINT inner_one');
  await client.query('ROLLBACK TO SAVEPOINT outer_one');
}

async function write({ client, random, writer, n }: Turn): Promise<Written> {
  const id = `${writer}.${n}`;
  const rollback = random() < 0.3;
  const checkpoint = rollback ? neverMark : 'kept';
  const rows = between(random, 1, 4);
  for (let row = 0; row < rows; row += 1) {
    await client.query('SAVEPOINT kept_one');
    await insert(client, `${id}.${row}`, checkpoint);
    await client.query('RELEASE SAVEPOINT kept_one');
    if (row === 0) await undone(client, id);
    await sleep(random() * openMsMax);
  }
  const adds = Array.from({ length: rows }, (_, row) => `ghost/${id}.${row}`);
  return { adds, rollback };
}

export const longTransactions: Workload = {
  name: 'long transactions',
  tableNames: ['ghost'],
  tables: 'CREATE TABLE ghost (id text PRIMARY KEY, checkpoint text NOT NULL)',
  write,
  wrong: `SELECT format('row %s was rolled back: %s', id, checkpoint) AS wrong
    FROM ghost WHERE checkpoint <> 'kept'`,
  things: `SELECT 'ghost/' || id AS thing FROM ghost`,
};
