/**
 * Digests of the rows of a table, independent of their order: the number of rows and the sum of
 * their hashes. The server computes them, in a session inside the snapshot, so that no row is sent.
 * Equal rows give equal digests on every server, version, encoding and collation; rows that differ
 * in one character of one value give others.
 */
import type { Client, QueryConfig } from 'pg';
import { qualifiedName, quoteIdentifier } from '../catalog/postgres-session.ts';
import type { ColumnId, RelationId } from '../change/change.ts';
import { interruptible } from '../waiting.ts';
import { explainChange, type PublishedTable } from './published-tables.ts';

/**
 * Of any set of rows. The hash of a row is 128 bits of SHA-256. Sums of numerics do not overflow,
 * do not depend on the order, and distinguish how often a row occurs, unlike XOR; two rows that
 * swap values are other rows. So different sets have equal digests once in 2^128.
 */
export interface Digest {
  readonly rows: bigint;
  /** Sums of the first and the second eight bytes of each row's hash. */
  readonly sums: readonly [bigint, bigint];
}

export interface TableDigest extends Digest {
  readonly relationId: RelationId;
  /** schema.name on this node. */
  readonly table: string;
  readonly columnIds: readonly ColumnId[];
  readonly identity: readonly ColumnId[];
}

export const noRows: Digest = { rows: 0n, sums: [0n, 0n] };

export function addDigests(a: Digest, b: Digest): Digest {
  return { rows: a.rows + b.rows, sums: [a.sums[0] + b.sums[0], a.sums[1] + b.sums[1]] };
}

export function equalDigests(a: Digest, b: Digest): boolean {
  return a.rows === b.rows && a.sums[0] === b.sums[0] && a.sums[1] === b.sums[1];
}

/** A part that was read; `pages` adds up to the table's pages. */
export interface ReadPart {
  readonly rows: bigint;
  readonly pages: number;
}

export interface ReadOptions {
  readonly signal: AbortSignal;
  readonly onRead: (part: ReadPart) => void;
}

export async function digestTable(
  client: Client,
  table: PublishedTable,
  options: ReadOptions,
): Promise<TableDigest> {
  let sum = noRows;
  await readRanges<DigestRow>(client, table, options, {
    query: (range) => ({ text: digestQuery(table, range) }),
    take: (row) => {
      const part = digestOf(row);
      sum = addDigests(sum, part);
      return part.rows;
    },
  });
  return {
    relationId: table.relationId,
    table: `${table.schema}.${table.name}`,
    columnIds: table.columns.map(({ id }) => id),
    identity: table.identity,
    ...sum,
  };
}

interface RangeReading<Row> {
  readonly query: (range: PageRange) => QueryConfig;
  /** Takes one row of an answer and returns how many rows of the table it covers. */
  readonly take: (row: Row) => bigint;
}

/** Runs one query for each range of pages, and reports progress after each. */
export async function readRanges<Row extends object>(
  client: Client,
  table: PublishedTable,
  { signal, onRead }: ReadOptions,
  { query, take }: RangeReading<Row>,
): Promise<void> {
  for (const range of pageRanges(table.pages)) {
    signal.throwIfAborted();
    const part = await interruptible(
      explainChange(() => client.query<Row>(query(range))),
      signal,
    );
    const rows = part.rows.reduce((sum, row) => sum + take(row), 0n);
    onRead({ rows, pages: (range.to ?? table.pages) - range.from });
  }
}

/**
 * 64 MB with pages of 8 kB: a few seconds. It bounds how long a statement runs after it was
 * abandoned, and how often progress is reported.
 */
const pagesPerStatement = 8192;

export interface PageRange {
  readonly from: number;
  /** null reads to the present end. */
  readonly to: number | null;
}

/** The ranges cover every page once. A single range is a plain scan of any kind of table. */
export function pageRanges(pages: number): readonly PageRange[] {
  const ranges: PageRange[] = [];
  for (let from = 0; from === 0 || from < pages; from += pagesPerStatement) {
    const to = from + pagesPerStatement;
    ranges.push({ from, to: to < pages ? to : null });
  }
  return ranges;
}

export type DigestRow = Record<'count' | 'first' | 'second', string>;

export function digestOf(row: DigestRow): Digest {
  return { rows: BigInt(row.count), sums: [BigInt(row.first), BigInt(row.second)] };
}

/** Over rows that have a column `hash`. */
export const digestColumns = `count(*) AS count, ${sumOf(1)} AS first, ${sumOf(17)} AS second`;

export function digestQuery(table: PublishedTable, range: PageRange): string {
  const hash = hashOf(table.columns.map(({ name }) => name));
  const hashed = `SELECT ${hash} AS hash ${fromPages(table, range)}`;
  return `SELECT ${digestColumns} FROM (${hashed}) AS hashed`;
}

/**
 * The end of a subquery that computes hashes, from FROM on. OFFSET 0 prevents the planner from
 * computing each hash once for each of its uses.
 */
export function fromPages(table: PublishedTable, range: PageRange): string {
  const bounds: string[] = [];
  if (range.from > 0) bounds.push(`t.ctid >= '(${range.from},0)'::tid`);
  if (range.to !== null) bounds.push(`t.ctid < '(${range.to},0)'::tid`);
  const where = bounds.length === 0 ? '' : `WHERE ${bounds.join(' AND ')}`;
  return `FROM ONLY ${qualifiedName(table.schema, table.name)} AS t ${where} OFFSET 0`;
}

/** A function takes 100 arguments, the first of which is the format. */
const columnsPerFormat = 99;

/**
 * The hash of some columns of `t`, as hex. The hashed text is SQL literals with commas between
 * them, which distinguish NULL, the empty string and every separator. Values are printed by their
 * types' output functions, as in the stream, so that -0, the scale of a numeric, trailing blanks of
 * character(n) and the exact text of json count; a cast to text would drop some of it, and a binary
 * form contains OIDs, which differ between nodes. The text of a ROW is not used: which values it
 * quotes depends on the C library's isspace() under the server's locale, and macOS has spaces in
 * UTF-8 where Linux has none. The text is converted to UTF8, since the server prints in its own
 * encoding.
 */
export function hashOf(columns: readonly string[]): string {
  const parts: string[] = [];
  for (let at = 0; at < columns.length; at += columnsPerFormat) {
    const some = columns.slice(at, at + columnsPerFormat);
    const values = some.map((name) => `t.${quoteIdentifier(name)}`);
    parts.push(`format('${some.map(() => '%L').join(',')}', ${values.join(', ')})`);
  }
  const text = parts.length === 0 ? `''` : parts.join(` || ',' || `);
  return `encode(sha256(convert_to(${text}, 'UTF8')), 'hex')`;
}

/** Sixteen hex digits from the given one on, as a signed number. */
function sumOf(digit: number): string {
  return `coalesce(sum(('x' || substr(hash, ${digit}, 16))::bit(64)::bigint), 0)`;
}
