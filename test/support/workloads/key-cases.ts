/**
 * Keys that are easily taken for another, or for none: empty text and blanks, bytes that are all
 * zero, numbers that are equal and written differently, parts that hold what could separate parts.
 * They are made, changed into each other, and deleted and made again in one transaction; beside
 * them rows whose large value an update leaves out, because the old row is sent whole.
 */
import { between } from '../seed.ts';
import type { Turn, Workload, Written } from './workload.ts';

interface KeyTable {
  readonly table: string;
  readonly columns: readonly string[];
  readonly keys: readonly (readonly string[])[];
}

const keyTables: readonly KeyTable[] = [
  {
    table: 'key_text',
    columns: ['id'],
    keys: ['', ' ', '  ', 'null', 'NULL', '\\N', 'é', 'e\u0301', '\u{1F40C}', '"', "'"].map(
      (key) => [key],
    ),
  },
  {
    table: 'key_bytes',
    columns: ['id'],
    keys: ['\\x', '\\x00', '\\x00000000', '\\x0000000000', '\\xff', '\\x00ff'].map((key) => [key]),
  },
  {
    table: 'key_number',
    columns: ['id'],
    keys: ['0', '0.0', '0.000', '1', '1.0', '1.00', '-1', 'NaN', '100', '1e2'].map((key) => [key]),
  },
  {
    table: 'key_pair',
    columns: ['one', 'two'],
    keys: [
      ['', ''],
      ['a', 'b'],
      ['a,b', ''],
      ['', 'a,b'],
      ['a","b', 'c'],
      ['a', 'b","c'],
    ],
  },
];

function where({ columns }: KeyTable, from: number): string {
  return columns.map((column, at) => `${column} = $${from + at}`).join(' AND ');
}

async function writeKeys({ client, random }: Turn, chosen: KeyTable): Promise<void> {
  const { table, columns, keys } = chosen;
  const draw = (): string[] => [...(keys[between(random, 0, keys.length - 1)] ?? [])];
  const [one, other] = [draw(), draw()];
  const insert = async (key: readonly string[]): Promise<unknown> =>
    client.query(
      `INSERT INTO ${table} AS t VALUES (${key.map((_, at) => `$${at + 1}`).join(', ')}, 1)
       ON CONFLICT (${columns.join(', ')}) DO UPDATE SET v = t.v + 1`,
      [...key],
    );
  const remove = async (key: readonly string[]): Promise<unknown> =>
    client.query(`DELETE FROM ${table} WHERE ${where(chosen, 1)}`, [...key]);
  const steps = between(random, 1, 3);
  for (let step = 0; step < steps; step += 1) {
    const drawn = random();
    if (drawn < 0.4) await insert(one);
    else if (drawn < 0.55) await remove(one);
    else if (drawn < 0.75) {
      await remove(one);
      await insert(one);
    } else {
      const set = columns.map((column, at) => `${column} = $${at + 1}`).join(', ');
      await remove(other);
      await client.query(
        `UPDATE ${table} SET ${set}, v = v + 1 WHERE ${where(chosen, columns.length + 1)}`,
        [...other, ...one],
      );
    }
  }
}

/** The body is written once in a while; other updates and changes of the key leave it out. */
async function writeLarge({ client, random, writer, n }: Turn): Promise<void> {
  const [id, to] = [between(random, 1, 8), between(random, 1, 8)];
  const drawn = random();
  if (drawn < 0.3) {
    await client.query(
      `INSERT INTO key_large AS t VALUES ($1, 0, repeat($2, 700))
       ON CONFLICT (id) DO UPDATE SET n = t.n + 1, body = excluded.body`,
      [id, `${writer}.${n} `],
    );
  } else if (drawn < 0.8) await client.query('UPDATE key_large SET n = n + 1 WHERE id = $1', [id]);
  else if (id !== to) {
    await client.query('DELETE FROM key_large WHERE id = $1', [to]);
    await client.query('UPDATE key_large SET id = $1 WHERE id = $2', [to, id]);
  }
}

async function write(turn: Turn): Promise<Written> {
  const chosen = keyTables[between(turn.random, 0, keyTables.length - 1)];
  if (chosen !== undefined) await writeKeys(turn, chosen);
  await writeLarge(turn);
  return { rollback: turn.random() < 0.1 };
}

export const keyCases: Workload = {
  name: 'key cases',
  tableNames: [...keyTables.map(({ table }) => table), 'key_large'],
  tables: `CREATE TABLE key_text (id text PRIMARY KEY, v int NOT NULL);
    CREATE TABLE key_bytes (id bytea PRIMARY KEY, v int NOT NULL);
    CREATE TABLE key_number (id numeric PRIMARY KEY, v int NOT NULL);
    CREATE TABLE key_pair (one text, two text, v int NOT NULL, PRIMARY KEY (one, two));
    CREATE TABLE key_large (id int PRIMARY KEY, n int NOT NULL, body text);
    ALTER TABLE key_large ALTER body SET STORAGE external, REPLICA IDENTITY FULL`,
  // Writers change keys into each other in any order.
  mayFail: ['40P01', '23505'],
  write,
};
