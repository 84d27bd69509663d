/**
 * A bank whose purses lie in three tables, and so in all partitions. Transfers between any two of
 * them keep the sum, which every snapshot of every node must find.
 */
import { between } from '../seed.ts';
import type { Turn, Workload, Written } from './workload.ts';

const tableNames = ['purse_a', 'purse_b', 'purse_c'] as const;
const purses = 12;
const each = 1_000;
const total = tableNames.length * purses * each;

interface Purse {
  readonly table: string;
  readonly id: number;
}

function drawPurse(random: () => number): Purse {
  const table = tableNames[between(random, 0, tableNames.length - 1)] ?? tableNames[0];
  return { table, id: between(random, 1, purses) };
}

/** Rows are locked in one order, so that writers wait for each other instead of dying. */
function inLockOrder(one: Purse, other: Purse): number {
  return one.table === other.table ? one.id - other.id : one.table < other.table ? -1 : 1;
}

async function write({ client, random }: Turn): Promise<Written> {
  const moved = Array.from({ length: between(random, 1, 3) }, () => {
    const amount = between(random, 1, 100);
    return [
      { purse: drawPurse(random), amount },
      { purse: drawPurse(random), amount: -amount },
    ];
  }).flat();
  moved.sort((one, other) => inLockOrder(one.purse, other.purse));
  for (const { purse, amount } of moved) {
    await client.query(`UPDATE ${purse.table} SET balance = balance + $1 WHERE id = $2`, [
      amount,
      purse.id,
    ]);
  }
  return { rollback: random() < 0.1 };
}

const all = tableNames.map((table) => `SELECT id, balance FROM ${table}`).join(' UNION ALL ');

export const bank: Workload = {
  name: 'bank',
  tableNames,
  tables: tableNames
    .map((table) => `CREATE TABLE ${table} (id int PRIMARY KEY, balance bigint NOT NULL)`)
    .join(';'),
  rows: tableNames
    .map((table) => `INSERT INTO ${table} SELECT i, ${each} FROM generate_series(1, ${purses}) i`)
    .join(';'),
  write,
  wrong: `SELECT format('%s purses hold %s, not %s', count(*), sum(balance), ${total}) AS wrong
    FROM (${all}) AS purse HAVING sum(balance) IS DISTINCT FROM ${total}`,
};
