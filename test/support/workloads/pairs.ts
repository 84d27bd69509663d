/**
 * Rows in pairs: an integer key in one table, the same as text in another, so that they mostly lie
 * in different partitions. They are made, changed and deleted together: no snapshot shows one
 * without the other, or with another value.
 */
import { between } from '../seed.ts';
import type { Turn, Workload, Written } from './workload.ts';

const keys = 40;

async function write({ client, random, writer, n }: Turn): Promise<Written> {
  const id = between(random, 1, keys);
  const value = `${writer}.${n}`;
  // A row that is not there cannot be locked, and two writers would each see half of the other's.
  await client.query('SELECT pg_advisory_xact_lock($1)', [id]);
  if (random() < 0.3) {
    await client.query('DELETE FROM husk WHERE id = $1', [id]);
    await client.query('DELETE FROM kernel WHERE id = $1', [`k${id}`]);
  } else {
    await client.query(
      'INSERT INTO husk VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET value = excluded.value',
      [id, value],
    );
    await client.query(
      'INSERT INTO kernel VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET value = excluded.value',
      [`k${id}`, value],
    );
  }
  return { rollback: random() < 0.1 };
}

export const pairs: Workload = {
  name: 'pairs',
  tableNames: ['husk', 'kernel'],
  tables: `CREATE TABLE husk (id int PRIMARY KEY, value text NOT NULL);
    CREATE TABLE kernel (id text PRIMARY KEY, value text NOT NULL)`,
  write,
  wrong: `SELECT format('pair %s: %s and %s', coalesce('k' || husk.id, kernel.id),
      coalesce(husk.value, 'none'), coalesce(kernel.value, 'none')) AS wrong
    FROM husk FULL JOIN kernel ON kernel.id = 'k' || husk.id
    WHERE husk.value IS DISTINCT FROM kernel.value`,
};
