/**
 * A fixed set of names that wander over keys: to a free key, or two change places. A name that is
 * there twice or not at all was half moved. The names are unique as well, so that a change of
 * places meets a second unique index on the way.
 */
import { between } from '../seed.ts';
import type { Turn, Workload, Written } from './workload.ts';

const names = 12;
const places = 36;
const aside = -1;

async function write({ client, random, writer }: Turn): Promise<Written> {
  const [from, to] = [between(random, 1, places), between(random, 1, places)];
  await client.query('SELECT FROM stone WHERE id = ANY ($1) ORDER BY id FOR UPDATE', [[from, to]]);
  const move = (a: number, b: number): Promise<unknown> =>
    client.query('UPDATE stone SET id = $2, moves = moves + 1 WHERE id = $1', [a, b]);
  const parked = aside - writer;
  await move(to, parked);
  await move(from, to);
  await move(parked, from);
  return { rollback: random() < 0.1 };
}

export const moves: Workload = {
  name: 'moves',
  tableNames: ['stone'],
  tables: `CREATE TABLE stone (id int PRIMARY KEY, name text NOT NULL UNIQUE,
    moves int NOT NULL DEFAULT 0)`,
  rows: `INSERT INTO stone SELECT i, 'stone ' || i FROM generate_series(1, ${names}) i`,
  // Two writers may want the same free place.
  mayFail: ['23505', '40P01'],
  write,
  wrong: `SELECT format('%s rows hold %s names, at keys %s to %s', count(*), count(DISTINCT name),
      min(id), max(id)) AS wrong
    FROM stone HAVING count(*) <> ${names} OR count(DISTINCT name) <> ${names} OR min(id) < 1`,
  climbing: 'SELECT name, moves AS value FROM stone',
};
