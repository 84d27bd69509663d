/**
 * Finds the rows of a table that differ between two nodes whose snapshots are still open. It
 * returns their keys, each with the kind of difference, and both rows only on request: values may
 * be secret. The amount of data that is read is bounded, however many rows differ and however large
 * they are. A repair uses these keys.
 */
import type { Client } from 'pg';
import { qualifiedName, quoteIdentifier } from '../catalog/postgres-session.ts';
import { bug } from '../errors/bug.ts';
import { interruptible } from '../waiting.ts';
import { digestBuckets } from './bucket-digest.ts';
import type {
  DifferentRow,
  NodeComparison,
  ShownRow,
  TableComparison,
  TableDifferences,
} from './compare.ts';
import { type BucketReader, type KeyDifference, narrow } from './narrowing.ts';
import type { Progress } from './progress.ts';
import { columnNames, explainChange, type PublishedTable } from './published-tables.ts';

/** A node whose snapshot is open. */
export interface OpenNode {
  readonly name: string;
  readonly client: Client;
  readonly tables: readonly PublishedTable[];
}

export interface DifferenceOptions {
  /** The largest number of keys that are read of a table; 0 skips the search. */
  readonly keysMax: number;
  readonly showRows: boolean;
  readonly signal: AbortSignal;
  /** Called with one line for users when the search in a table begins. */
  readonly onStage: (line: string) => void;
  /** Called when a pass over both sides of a table begins. */
  readonly progress: (what: string) => Progress;
  /** Waits for both sides. When one fails, it cancels the other. */
  readonly all: <Result>(steps: readonly Promise<Result>[]) => Promise<Result[]>;
}

/** Adds the differing rows to a comparison, for every table that has some. */
export async function findDifferences(
  leader: OpenNode,
  follower: OpenNode,
  node: NodeComparison,
  options: DifferenceOptions,
): Promise<NodeComparison> {
  if (options.keysMax === 0) return node;
  const tables: TableComparison[] = [];
  for (const comparison of node.tables) {
    if (comparison.difference !== 'rows') {
      tables.push(comparison);
      continue;
    }
    options.onStage(`${comparison.table} differs on ${node.name}: searching for the rows`);
    const sides = [sideOf(leader, comparison), sideOf(follower, comparison)] as const;
    tables.push({ ...comparison, rowDifferences: await findRows(sides, comparison, options) });
  }
  return { ...node, tables };
}

interface Side {
  readonly name: string;
  readonly client: Client;
  readonly table: PublishedTable;
}

type Sides = readonly [leader: Side, follower: Side];

function sideOf({ name, client, tables }: OpenNode, { relationId, table }: TableComparison): Side {
  const found = tables.find((one) => one.relationId === relationId);
  if (found === undefined) throw bug(`${table} was not read on ${name}`);
  return { name, client, table: found };
}

async function findRows(
  sides: Sides,
  { table, rows, leaderRows }: TableComparison,
  options: DifferenceOptions,
): Promise<TableDifferences> {
  let pass = 0;
  const read: BucketReader = async (question) => {
    pass += 1;
    const progress = options.progress(`${table}, pass ${pass}`);
    const reading = sides.map((side) => {
      const { onRead } = progress.node(side.name, [side.table]);
      const { signal } = options;
      return digestBuckets(side.client, side.table, question, { signal, onRead });
    });
    const [leader = new Map(), follower = new Map()] = await options.all(reading);
    return { leader, follower };
  };
  const { found, ...total } = await narrow(read, largerOf(rows ?? 0n, leaderRows ?? 0n));
  const kinds = { missing: 0, extra: 0, different: 0 };
  for (const { kind } of found) kinds[kind] += 1;
  const keys = await readRows(sides, found.slice(0, options.keysMax), options);
  return { ...total, kinds, keys };
}

function largerOf(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}

async function readRows(
  [leader, follower]: Sides,
  wanted: readonly KeyDifference[],
  options: DifferenceOptions,
): Promise<readonly DifferentRow[]> {
  const [ofLeader = new Map(), ofFollower = new Map()] = await options.all([
    readSide(leader, tidsOf(wanted, 'leaderTid'), leader.table, options),
    readSide(follower, tidsOf(wanted, 'followerTid'), leader.table, options),
  ]);
  return wanted
    .map(({ kind, leaderTid, followerTid }) => {
      const [here, there] = [ofLeader.get(leaderTid ?? ''), ofFollower.get(followerTid ?? '')];
      const { key = {}, identity = [] } = here ?? there ?? {};
      return { kind, identity, key, leader: here?.row ?? null, follower: there?.row ?? null };
    })
    .sort(byKey);
}

/** 9 before 10, so that users see the beginning and the end of a run of keys. */
const keyOrder = new Intl.Collator('en', { numeric: true });

function byKey(a: DifferentRow, b: DifferentRow): number {
  for (const [name, value] of Object.entries(a.key)) {
    const order = keyOrder.compare(value ?? '', b.key[name] ?? '');
    if (order !== 0) return order;
  }
  return 0;
}

function tidsOf(
  wanted: readonly KeyDifference[],
  side: 'leaderTid' | 'followerTid',
): readonly string[] {
  return wanted.map((difference) => difference[side]).filter((tid) => tid !== null);
}

interface ReadRow {
  readonly identity: readonly string[];
  readonly key: ShownRow;
  readonly row: ShownRow | null;
}

/** Rows keep their ctid for as long as the snapshot is open and the table is locked. */
async function readSide(
  { client, table }: Side,
  tids: readonly string[],
  names: PublishedTable,
  { showRows, signal }: DifferenceOptions,
): Promise<ReadonlyMap<string, ReadRow>> {
  const ids = table.columns.map(({ id }) => id);
  const shown = showRows ? ids : [];
  const text = rowsQuery(table, showRows);
  const reading = explainChange(() => {
    return client.query<(string | null)[]>({ text, values: [tids], rowMode: 'array' });
  });
  const { rows } = await interruptible(reading, signal);
  const keyNames = columnNames(names, table.identity);
  const rowNames = columnNames(names, shown);
  return new Map(
    rows.map(([tid, ...values]) => {
      const key = namedValues(keyNames, values);
      const identity = values.slice(0, keyNames.length).map((value) => value ?? '');
      const row = showRows ? namedValues(rowNames, values.slice(keyNames.length)) : null;
      return [tid ?? '', { identity, key, row }];
    }),
  );
}

function namedValues(names: readonly string[], values: readonly (string | null)[]): ShownRow {
  return Object.fromEntries(names.map((name, at) => [name, values[at] ?? null]));
}

/** For display. Longer values are distinguished by their hash. */
const shownCharacters = 300;

export function rowsQuery(table: PublishedTable, showRows: boolean): string {
  const key = columnNames(table, table.identity).map(printed);
  const row = showRows ? table.columns.map(({ name }) => cut(name)) : [];
  return `
    SELECT ${['t.ctid::text', ...key, ...row].join(', ')}
    FROM ONLY ${qualifiedName(table.schema, table.name)} AS t
    WHERE t.ctid = ANY($1::tid[])`;
}

/** By the type's output function, as in the stream. */
function printed(name: string): string {
  return `format('%s', t.${quoteIdentifier(name)})`;
}

/** num_nulls, since IS NULL is also true for a composite value whose fields are all null. */
function cut(name: string): string {
  return `CASE num_nulls(t.${quoteIdentifier(name)}) WHEN 0 THEN (
    SELECT CASE WHEN length(v) <= ${shownCharacters} THEN v
      ELSE left(v, ${shownCharacters}) || '... (' || length(v) || ' characters, sha256 ' ||
        left(encode(sha256(convert_to(v, 'UTF8')), 'hex'), 16) || ')' END
    FROM ${printed(name)} AS v) END`;
}
