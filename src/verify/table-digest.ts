/**
 * What the rows of a table come to, whatever order they lie in. Flows in: a session inside of the
 * snapshot to be read; flows out: the number of rows and the sum of their hashes, computed by the
 * server, so that no row travels. Equal rows give equal digests on every server and version, since
 * the session's settings fix the text of every value.
 */
import type { Client } from 'pg';
import { qualifiedName, quoteIdentifier } from '../catalog/postgres-session.ts';
import type { ColumnId, RelationId } from '../change/change.ts';
import { interruptible } from './interruptible.ts';
import { explainChange, type PublishedTable } from './published-tables.ts';

export interface TableDigest {
  readonly relationId: RelationId;
  /** schema.name on this node. */
  readonly table: string;
  readonly columnIds: readonly ColumnId[];
  readonly rows: bigint;
  /** Sums of the first and the second eight bytes of each row's SHA-256. */
  readonly sums: readonly [bigint, bigint];
}

/**
 * 64 MB with pages of 8 kB: a few seconds. A statement that nobody waits for any more ends after
 * that, and progress is told that often.
 */
const pagesPerStatement = 8192;

export interface DigestOptions {
  readonly signal: AbortSignal;
  readonly onRows: (rows: bigint) => void;
}

export async function digestTable(
  client: Client,
  table: PublishedTable,
  { signal, onRows }: DigestOptions,
): Promise<TableDigest> {
  let rows = 0n;
  let first = 0n;
  let second = 0n;
  for (const range of pageRanges(table.pages)) {
    signal.throwIfAborted();
    const query = digestQuery(table, range);
    const part = await interruptible(
      explainChange(() => client.query<Record<'count' | 'first' | 'second', string>>(query)),
      signal,
    );
    const row = part.rows[0];
    const count = BigInt(row?.count ?? 0);
    rows += count;
    first += BigInt(row?.first ?? 0);
    second += BigInt(row?.second ?? 0);
    onRows(count);
  }
  return {
    relationId: table.relationId,
    table: `${table.schema}.${table.name}`,
    columnIds: table.columns.map(({ id }) => id),
    rows,
    sums: [first, second],
  };
}

export interface PageRange {
  readonly from: number;
  /** null reads to the end, wherever that is by then. */
  readonly to: number | null;
}

/** Together the ranges hold every page once. A single one is a plain scan of any kind of table. */
export function pageRanges(pages: number): readonly PageRange[] {
  const ranges: PageRange[] = [];
  for (let from = 0; from === 0 || from < pages; from += pagesPerStatement) {
    const to = from + pagesPerStatement;
    ranges.push({ from, to: to < pages ? to : null });
  }
  return ranges;
}

/**
 * The text of a ROW tells NULL, the empty string and every separator apart, and holds up to 1,664
 * columns. OFFSET 0 keeps the planner from computing the hash once for each of its uses.
 */
export function digestQuery(table: PublishedTable, range: PageRange): string {
  const columns = table.columns.map(({ name }) => `t.${quoteIdentifier(name)}`);
  const bounds: string[] = [];
  if (range.from > 0) bounds.push(`t.ctid >= '(${range.from},0)'::tid`);
  if (range.to !== null) bounds.push(`t.ctid < '(${range.to},0)'::tid`);
  const where = bounds.length === 0 ? '' : `WHERE ${bounds.join(' AND ')}`;
  return `
    SELECT count(*) AS count, ${sumOf(1)} AS first, ${sumOf(17)} AS second
    FROM (
      SELECT encode(sha256(convert_to(ROW(${columns.join(', ')})::text, 'UTF8')), 'hex') AS hash
      FROM ONLY ${qualifiedName(table.schema, table.name)} AS t ${where} OFFSET 0) AS hashed`;
}

/** Sixteen hex digits from the given one on, as a signed number. */
function sumOf(digit: number): string {
  return `coalesce(sum(('x' || substr(hash, ${digit}, 16))::bit(64)::bigint), 0)`;
}
