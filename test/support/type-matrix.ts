/**
 * Sends every value of the type matrix through a fleet: as columns, as elements of arrays and as
 * keys, inserted, updated to one another and deleted. Flows in: a fleet whose agents run; flows
 * out: assertions that name type, row and node. What the servers at hand lack is left out and told.
 */
import pg from 'pg';
import * as assert from 'uvu/assert';
import { ExactReader } from './exact-rows.ts';
import type { Fleet } from './fleet.ts';
import { type MatrixType, matrixTypes, matrixTypesSql } from './type-values.ts';

/** What can be sent between the servers of a fleet. */
export interface Matrix {
  readonly types: readonly Carried[];
  readonly extensions: readonly string[];
  /** Types of the matrix that a server lacks. */
  readonly missing: readonly string[];
}

interface Carried extends Omit<MatrixType, 'values'> {
  readonly values: readonly string[];
}

/** Looks at the servers, by URLs of their superusers. */
export async function matrixFor(urls: readonly string[]): Promise<Matrix> {
  const servers = await Promise.all(urls.map(abilitiesOf));
  const isThere = (need: string | null): boolean =>
    need === null || servers.every(({ has }) => has.has(need));
  const major = Math.min(...servers.map((server) => server.major));
  const types = matrixTypes
    .filter(({ needs }) => isThere(needs))
    .map((type) => ({
      ...type,
      values: type.values.filter(({ since }) => since <= major).map(({ text }) => text),
    }));
  const needs = new Set(types.map((type) => type.needs));
  return {
    types,
    extensions: [...needs].filter((need) => need !== null && need !== 'libxml') as string[],
    missing: matrixTypes.filter((type) => !isThere(type.needs)).map(({ type }) => type),
  };
}

async function abilitiesOf(url: string): Promise<{ major: number; has: ReadonlySet<string> }> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    const version = await client.query<{ major: number }>(
      `SELECT current_setting('server_version_num')::int / 10000 AS major`,
    );
    const names = await client.query<{ name: string }>('SELECT name FROM pg_available_extensions');
    const xml = await client.query(`SELECT '<a/>'::xml`).then(
      () => ['libxml'],
      () => [],
    );
    const has = new Set([...names.rows.map(({ name }) => name), ...xml]);
    return { major: version.rows[0]?.major ?? 0, has };
  } finally {
    await client.end();
  }
}

/** `keys` are a table for each type that can be one. */
export function matrixTables({ types, extensions }: Matrix, keys: boolean): string {
  const columns = types.map(({ type }, at) => `v${at} ${type}`).join(', ');
  const lists = types.flatMap(({ type, hasArray }, at) => (hasArray ? [`v${at} ${type}[]`] : []));
  return `
    ${matrixTypesSql(extensions)}
    CREATE UNLOGGED TABLE sample (i int PRIMARY KEY, ${columns});
    CREATE TABLE plain (id int PRIMARY KEY, ${columns});
    CREATE TABLE listed (id int PRIMARY KEY, ${lists.join(', ')});
    ALTER TABLE plain REPLICA IDENTITY FULL; ALTER TABLE listed REPLICA IDENTITY FULL;
    ${types
      .flatMap(({ type, isKey }, at) =>
        isKey && keys ? [`CREATE TABLE key_${at} (k ${type} PRIMARY KEY, n int);`] : [],
      )
      .join('\n')}`;
}

/** Lists of a sample row's value, of other lengths, dimensions and lower bounds. */
function listOf(at: number): string {
  const [own, next] = [`s.v${at}`, `u.v${at}`];
  const square = `ARRAY[ARRAY[${own}, ${next}], ARRAY[${next}, NULL]]`;
  return `CASE s.i % 5 WHEN 0 THEN ARRAY[${own}] WHEN 1 THEN ARRAY[${own}, NULL, ${next}]
    WHEN 2 THEN ${square} WHEN 3 THEN ARRAY[${own}, ${next}] ELSE ARRAY[${own}] || '{}' END`;
}

export class MatrixRun {
  readonly #fleet: Fleet;
  readonly #types: readonly Carried[];
  readonly reader: ExactReader;

  constructor(fleet: Fleet, matrix: Matrix) {
    this.#fleet = fleet;
    this.#types = matrix.types;
    this.reader = new ExactReader(fleet);
  }

  async close(): Promise<void> {
    await this.reader.close();
  }

  /** With as many steps as there are rows, every value is updated to every other. */
  async columns(stepsMax: number): Promise<void> {
    const count = await this.#fillSample();
    const names = this.#types.map((_, at) => `v${at}`);
    await this.#commit('INSERT INTO plain SELECT * FROM sample');
    assert.is(await this.#sameColumns('plain', 'inserted'), count);
    const sets = names.map((name) => `${name} = s.${name}`).join(', ');
    let offset = 0;
    for (let step = 1; step <= Math.min(count - 1, stepsMax); step += 1) {
      offset += step;
      await this.#commit(
        `UPDATE plain p SET ${sets} FROM sample s WHERE s.i = (p.id + ${offset}) % ${count}`,
      );
      await this.#sameColumns('plain', `updated, step ${step}`);
    }
    await this.#commit('DELETE FROM plain WHERE id % 2 = 0');
    await this.#sameColumns('plain', 'deleted');
  }

  async arrays(): Promise<void> {
    const count = await this.#fillSample();
    const lists = this.#types.flatMap((type, at) => (type.hasArray ? [at] : []));
    const pairs = `sample s JOIN sample u ON u.i = (s.i + 1) % ${count}`;
    const values = lists.map(listOf).join(', ');
    await this.#commit(`INSERT INTO listed SELECT s.i, ${values} FROM ${pairs}`);
    assert.is(await this.#sameColumns('listed', 'inserted'), count);
    const shifted = lists.map((at) => {
      // The text of a list, and with it its type's own quoting and delimiter, under other bounds.
      const bounds = `CASE array_ndims(v${at}) WHEN 1 THEN '[-1:' || cardinality(v${at}) - 2 || ']='
        WHEN 2 THEN '[0:1][5:6]=' ELSE '' END`;
      return `v${at} = (${bounds} || v${at}::text)::${this.#types[at]?.type}[]`;
    });
    await this.#commit(`UPDATE listed SET ${shifted.join(', ')}`);
    await this.#sameColumns('listed', 'under other bounds');
    await this.#commit(`UPDATE listed SET ${lists.map((at) => `v${at} = '{}'`).join(', ')}`);
    await this.#sameColumns('listed', 'empty');
  }

  /** Inserts, updates, changes and deletes rows under keys of every type. */
  async keys(changesMax: number): Promise<void> {
    const keyed = this.#types.flatMap((type, at) =>
      type.isKey ? [{ type, table: `key_${at}` }] : [],
    );
    const everywhere = async (what: string, statement: (key: (typeof keyed)[number]) => string) => {
      await this.#commit(keyed.map(statement).join('; '));
      const rows = keyed.map(({ type, table }) => {
        return `SELECT ${quoted(type.type)} AS type, k::text, n::text FROM public.${table}`;
      });
      const query = `${rows.join(' UNION ALL ')} ORDER BY 1, 2, 3`;
      return (await this.reader.assertSame(query, `keys, ${what}`)).rows.length;
    };
    const inserted = await everywhere('inserted', ({ type, table }) => {
      const rows = type.values.map((value, n) => `(${literal(type, value)}, ${n})`);
      return `INSERT INTO ${table} VALUES ${rows.join(', ')} ON CONFLICT DO NOTHING`;
    });
    assert.ok(inserted > keyed.length);
    await everywhere('updated', ({ table }) => `UPDATE ${table} SET n = -n`);
    await everywhere('deleted', ({ table }) => `DELETE FROM ${table} WHERE n <> 0`);
    const lengthMax = Math.max(...keyed.map(({ type }) => type.values.length));
    for (let step = 1; step <= Math.min(lengthMax, changesMax); step += 1) {
      await everywhere(`changed, step ${step}`, ({ type, table }) => {
        const value = type.values[step % type.values.length] ?? '';
        return `UPDATE ${table} SET k = ${literal(type, value)}, n = ${step}`;
      });
    }
    assert.is(await everywhere('gone', ({ table }) => `DELETE FROM ${table}`), 0);
  }

  async #commit(statement: string): Promise<void> {
    await this.#fleet.sql('a', statement);
    await this.#fleet.caughtUp();
  }

  /** One row per value of the longest list, shorter lists in turn, and a row of nulls. */
  async #fillSample(): Promise<number> {
    const count = Math.max(...this.#types.map(({ values }) => values.length));
    const rows = Array.from({ length: count }, (_, at) => {
      const values = this.#types.map((type) => {
        return literal(type, type.values[at % type.values.length] ?? '');
      });
      return `(${at}, ${values.join(', ')})`;
    });
    const nulls = `(${count}, ${this.#types.map(() => 'NULL').join(', ')})`;
    await this.#fleet.sql('a', `SET xmloption = content; SET DateStyle = ISO; DELETE FROM sample`);
    for (const row of [...rows, nulls]) {
      await this.#fleet.sql('a', `INSERT INTO sample VALUES ${row}`);
    }
    return count + 1;
  }

  /** By text and, where that means the same on every server, by binary form. */
  async #sameColumns(table: string, what: string): Promise<number> {
    const { rows } = await this.reader.read(
      'a',
      `SELECT a.attname, t.typsend,
         t.typcategory <> 'A' OR t.typnamespace = 'pg_catalog'::regnamespace
       FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
       WHERE a.attrelid = 'public.${table}'::regclass AND a.attnum > 1 ORDER BY a.attnum`,
    );
    const cells = rows.flatMap(([name, send, isComparable]) => {
      const type = this.#types[Number(name?.slice(1))];
      const text = `${name} AS ${label(`${type?.type} in ${table}`)}`;
      if (!type?.hasBinary || send === '-' || isComparable !== 't') return [text];
      return [text, `${send}(${name}) AS ${label(`binary ${type.type} in ${table}`)}`];
    });
    const query = `SELECT id, ${cells.join(', ')} FROM public.${table} ORDER BY id`;
    return (await this.reader.assertSame(query, what)).rows.length;
  }
}

function literal({ type }: Carried, value: string): string {
  return `${quoted(value)}::${type}`;
}

/** Ordinary literals: backslashes mean themselves. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}

function label(text: string): string {
  return `"${text.replaceAll('"', '""')}"`;
}
