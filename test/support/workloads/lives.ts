/**
 * Rows that are deleted and made again under the same key, in one transaction or in several, and a
 * ledger beside them, in another table, of which life each is in. A deleted row that returns, and
 * a row that is an older life of itself, do not agree with the ledger.
 */
import { between } from '../seed.ts';
import type { Turn, Workload, Written } from './workload.ts';

const keys = 10;

async function write({ client, random }: Turn): Promise<Written> {
  const id = between(random, 1, keys);
  const { rows } = await client.query<{ lives: number; alive: boolean }>(
    'SELECT lives, alive FROM birth WHERE id = $1 FOR UPDATE',
    [id],
  );
  let lives = rows[0]?.lives ?? 0;
  let alive = rows[0]?.alive ?? false;
  const steps = between(random, 1, 4);
  for (let step = 0; step < steps; step += 1) {
    if (alive) {
      await client.query('DELETE FROM life WHERE id = $1', [id]);
    } else {
      lives += 1;
      await client.query('INSERT INTO life VALUES ($1, $2, $3)', [
        id,
        lives,
        'l'.repeat(lives % 50),
      ]);
    }
    alive = !alive;
  }
  await client.query('UPDATE birth SET lives = $1, alive = $2 WHERE id = $3', [lives, alive, id]);
  const born = lives - (rows[0]?.lives ?? 0);
  return { raises: Array.from({ length: born }, () => `birth/${id}`) };
}

export const lives: Workload = {
  name: 'lives',
  tableNames: ['life', 'birth'],
  tables: `CREATE TABLE life (id int PRIMARY KEY, life int NOT NULL, note text);
    CREATE TABLE birth (id int PRIMARY KEY, lives int NOT NULL, alive boolean NOT NULL)`,
  rows: `INSERT INTO birth SELECT i, 0, false FROM generate_series(1, ${keys}) i`,
  write,
  wrong: `SELECT format('key %s: the ledger says life %s, alive %s; the row is life %s', id,
      birth.lives, birth.alive, coalesce(life.life::text, 'none')) AS wrong
    FROM birth FULL JOIN life USING (id)
    WHERE birth.alive IS DISTINCT FROM (life.life IS NOT NULL)
      OR life.life IS DISTINCT FROM CASE WHEN birth.alive THEN birth.lives END`,
  climbing: `SELECT 'birth/' || id AS name, lives AS value FROM birth`,
  counters: `SELECT 'birth/' || id AS counter, lives AS value FROM birth`,
};
