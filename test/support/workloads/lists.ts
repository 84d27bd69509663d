/**
 * Lists that transactions append to: each adds one element, found nowhere else, to one to three
 * lists and reads what they hold then. At the end every acknowledged element is there once, all
 * nodes have one order, and what was read is how the list begins.
 */
import { between, someOf } from '../seed.ts';
import type { Turn, Workload, Written } from './workload.ts';

const listsAtATime = 8;
/** After that many turns of a writer the lists are left alone: a list stays shorter than a page. */
const turnsPerList = 30;

async function write({ client, random, writer, n }: Turn): Promise<Written> {
  const first = Math.floor(n / turnsPerList) * listsAtATime;
  const open = Array.from({ length: listsAtATime }, (_, at) => first + at);
  const keys = someOf(random, open, between(random, 1, 3)).sort((a, b) => a - b);
  const element = `${writer}.${n}`;
  const reads: { list: string; elements: string[] }[] = [];
  for (const key of keys) {
    const { rows } = await client.query<{ elements: string }>(
      `INSERT INTO list AS l VALUES ($1, $2)
       ON CONFLICT (id) DO UPDATE SET elements = l.elements || ',' || excluded.elements
       RETURNING elements`,
      [key, element],
    );
    reads.push({ list: String(key), elements: (rows[0]?.elements ?? '').split(',') });
  }
  return { adds: keys.map((key) => `list/${key}/${element}`), reads };
}

export const lists: Workload = {
  name: 'lists',
  tableNames: ['list'],
  tables: 'CREATE TABLE list (id int PRIMARY KEY, elements text NOT NULL)',
  write,
  climbing: `SELECT 'list/' || id AS name, length(elements) AS value FROM list
    WHERE id >= (SELECT max(id) - ${2 * listsAtATime} FROM list)`,
  things: `SELECT 'list/' || id || '/' || element AS thing
    FROM list, unnest(string_to_array(elements, ',')) AS element`,
  lists: 'SELECT id AS list, elements FROM list',
};
