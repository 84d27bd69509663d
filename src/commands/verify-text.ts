/**
 * A verification as lines for people: the tables of each node, the keys that differ, both rows on
 * request, and the next steps. Keys and values are data: a text that is ambiguous, or that would
 * move the cursor, is printed as JSON text.
 */

import { formatEpochLsn } from '../change/position.ts';
import type { Verification } from '../fleet/operations/verify.ts';
import type {
  DifferentRow,
  NodeComparison,
  ShownRow,
  TableComparison,
  TableDifferences,
} from '../verify/compare.ts';
import type { ProgressState } from '../verify/progress.ts';
import { tableLines } from './answer.ts';
import { durationText } from './status.ts';

/** Rows may be secret; equal tables are many. */
export interface ShownParts {
  readonly showRows: boolean;
  readonly all: boolean;
}

export function verificationLines(
  verification: Verification,
  shown: ShownParts,
  repaired: number | null,
): readonly string[] {
  const { leader, lsn, nodes, equal, leftOut, notCompared } = verification;
  const { showRows } = shown;
  if (nodes.length === 0) return ['there is no follower to compare'];
  const lines = nodes.flatMap((node) => [...nodeLines(node, leader, shown), '']);
  for (const { name, why } of leftOut) lines.push(`node ${name}: left out, ${why}`, '');
  if (repaired !== null) lines.push(`node ${leader} published ${grouped(repaired)} rows again`, '');
  const at = `at ${formatEpochLsn(lsn)}`;
  lines.push(...outsideLines(notCompared, shown.all));
  const rows = notCompared.length === 0 ? 'every row' : 'every row that was compared';
  if (equal) return [...lines, `equal ${at}: ${rows} is that of node ${leader}`];
  const different = nodes.filter((node) => !node.equal).map(({ name }) => name);
  return [
    ...lines,
    `DIFFERENT ${at}: ${different.join(', ')}`,
    hintLine(different, showRows || !nodes.some(hasKeys), repaired !== null),
  ];
}

function hasKeys({ tables }: NodeComparison): boolean {
  return tables.some(({ rowDifferences }) => rowDifferences !== null);
}

function hintLine(different: readonly string[], isAllShown: boolean, isRepaired: boolean): string {
  const repair = `Repair them: understudy verify ${different.join(' ')} --repair. `;
  const show = `See both rows: understudy verify ${different.join(' ')} --show-rows. `;
  const nodes = different.join(' or ');
  const more = `Do not promote ${nodes}; see "Rows differ" in docs/operations/runbooks.md.`;
  return `HINT: ${isAllShown ? '' : show}${isRepaired ? '' : repair}${more}`;
}

/** More are counted: they are many where only some tables are in the stream. */
const outsideMax = 10;

function outsideLines(tables: readonly string[], all: boolean): readonly string[] {
  if (tables.length === 0) return [];
  const shown = (all ? tables : tables.slice(0, outsideMax)).map(shownText);
  const more = tables.length - shown.length;
  const rest = more === 0 ? '' : ` and ${grouped(more)} more (--all lists them)`;
  return [`not compared, as they are not in the stream: ${shown.join(', ')}${rest}`, ''];
}

function nodeLines(
  node: NodeComparison,
  leader: string,
  { showRows, all }: ShownParts,
): readonly string[] {
  const different = node.tables.filter(({ difference }) => difference !== null);
  const count = `${different.length} of ${node.tables.length} tables`;
  const verdict = node.equal
    ? 'equal'
    : `${count} ${different.length === 1 ? 'differs' : 'differ'}`;
  const same = node.tables.filter(({ difference }) => difference === null);
  const listed = all ? [...different, ...same] : different;
  const table = tableLines(
    ['TABLE', 'ROWS', `ON ${leader}`, 'DIFFERENCE'],
    listed.map((one) => {
      const { rows, leaderRows } = one;
      return [shownText(one.table), rows, leaderRows, differenceText(one, node.name)];
    }),
  );
  const counted = `${same.length} equal ${same.length === 1 ? 'table' : 'tables'}`;
  const rows = same.reduce((sum, one) => sum + (one.rows ?? 0n), 0n);
  return [
    `node ${node.name}: ${verdict}`,
    ...(listed.length === 0 ? [] : table),
    ...(all || same.length === 0 ? [] : [`${counted}, ${grouped(rows)} rows (--all lists them)`]),
    ...different.flatMap((table) => rowsLines(table, leader, node.name, showRows)),
  ];
}

function differenceText({ difference, rowDifferences }: TableComparison, node: string): string {
  switch (difference) {
    case null:
      return 'none';
    case 'missing':
      return `node ${node} does not have the table`;
    case 'extra':
      return `only node ${node} has the table`;
    case 'columns':
      return 'other columns, or another identity';
    case 'rows':
      return rowDifferences === null ? 'other rows' : countText(rowDifferences);
  }
}

/** `1 row missing`, `3 rows: 1 missing, 2 different`, `at least 2,905 rows` */
function countText({ rows, exact, kinds }: TableDifferences): string {
  const count = `${exact ? '' : 'at least '}${grouped(rows)} ${rows === 1n ? 'row' : 'rows'}`;
  if (!exact) return count;
  const parts = Object.entries(kinds).filter(([, some]) => some > 0);
  if (parts.length === 1) return `${count} ${parts[0]?.[0]}`;
  return `${count}: ${parts.map(([kind, some]) => `${grouped(some)} ${kind}`).join(', ')}`;
}

function rowsLines(
  { table, rowDifferences }: TableComparison,
  leader: string,
  node: string,
  showRows: boolean,
): readonly string[] {
  if (rowDifferences === null) return [];
  const { keys, rows, exact } = rowDifferences;
  const all = `${exact ? '' : 'at least '}${grouped(rows)}`;
  const isCut = BigInt(keys.length) < rows;
  const shown = isCut ? `, ${grouped(keys.length)} of ${all} (--keys N shows more)` : '';
  const title = `rows of ${shownText(table)} that differ${shown}`;
  if (showRows) return ['', title, ...keys.flatMap((key) => rowLines(key, leader, node))];
  const names = Object.keys(keys[0]?.key ?? {});
  const cells = keys.map(({ kind, key }) => [kind, ...names.map((name) => cellOf(key, name))]);
  return ['', title, ...tableLines(['', ...names.map(shownText)], cells)];
}

/** The one row, or both side by side with only the values that differ. */
function rowLines(
  { kind, key, leader: here, follower: there }: DifferentRow,
  leader: string,
  node: string,
): readonly string[] {
  const rows = [
    { title: `ON ${leader}`, row: here },
    { title: `ON ${node}`, row: there },
  ].flatMap(({ title, row }) => (row === null ? [] : [{ title, row }]));
  const names = Object.keys(here ?? there ?? {}).filter((name) => {
    return here === null || there === null || here[name] !== there[name];
  });
  const named = Object.keys(key).map((name) => `${shownText(name)} = ${cellOf(key, name)}`);
  const lines = tableLines(
    ['COLUMN', ...rows.map(({ title }) => title)],
    names.map((name) => [shownText(name), ...rows.map(({ row }) => cellOf(row, name))]),
  );
  return [`${kind}: ${named.join(', ')}`, ...lines.map((line) => `  ${line}`)];
}

function cellOf(row: ShownRow, name: string): string {
  const value = row[name];
  return value === null || value === undefined ? 'NULL' : shownText(value);
}

/** Letters, digits, marks, punctuation and symbols, and single spaces between them. */
const plain = /^[\p{L}\p{N}\p{M}\p{P}\p{S}]+( [\p{L}\p{N}\p{M}\p{P}\p{S}]+)*$/u;
const unseen = /[\p{C}\p{Zl}\p{Zp}]/gu;

/** The text itself where it is unambiguous. */
export function shownText(text: string): string {
  if (plain.test(text) && !text.startsWith('"') && text !== 'NULL' && text !== '-') return text;
  return JSON.stringify(text).replace(unseen, (character) => {
    return character.replace(/[\s\S]/g, (unit) => {
      return `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`;
    });
  });
}

/** 1,234,567 */
function grouped(count: bigint | number): string {
  return count.toLocaleString('en-US');
}

/** An estimate from less than this is useless. */
const estimatedFromMs = 2_000;

/** `comparing: 43 %, about 16 s left (a 3/12 tables, 12,400,000 rows; b …)` */
export function progressText({ what, done, tookMs, nodes }: ProgressState): string {
  const isEstimated = tookMs >= estimatedFromMs && done > 0 && done < 1;
  const restMs = Math.round(tookMs / done - tookMs);
  const rest = isEstimated ? `, about ${durationText(restMs)} left` : '';
  const parts = nodes.map(({ name, tables, tablesDone, rows }) => {
    const ofTables = tables === 1 ? '' : ` ${tablesDone}/${tables} tables,`;
    return `${name}${ofTables} ${grouped(rows)} rows`;
  });
  return `${what}: ${Math.floor(done * 100)} %${rest} (${parts.join('; ')})`;
}
