/**
 * How far the reading of rows from before the stream is, in words. Flows in: what a point says of
 * its unfinished tables; flows out: one line, or nothing. Pure.
 */
import type { UnfinishedTable } from '../../change/change.ts';

/** As status shows it. */
export interface UnfinishedStatus {
  readonly table: string;
  readonly rows: number;
  readonly estimate: number | null;
}

export function unfinishedStatus(table: UnfinishedTable): UnfinishedStatus {
  const { relation, rows, estimate } = table;
  return { table: relation, rows, estimate };
}

export function unfinishedText(tables: readonly UnfinishedTable[], nowMs: number): string | null {
  const [first, ...more] = tables;
  if (first === undefined) return null;
  const rest = more.length === 0 ? '' : `; tables to come: ${more.length}`;
  return `rows from before the stream are being read: ${progressOf(first, nowMs)}${rest}`;
}

function progressOf({ relation, rows, estimate, since }: UnfinishedTable, nowMs: number): string {
  const of = estimate === null || estimate < rows ? '' : ` of about ${count(estimate)}`;
  const done = `${relation}, ${count(rows)}${of} rows`;
  const seconds = since === null ? 0 : (nowMs - since) / 1_000;
  if (seconds < 1 || rows === 0) return done;
  const rate = rows / seconds;
  const left = of === '' ? '' : `, ${duration(((estimate ?? 0) - rows) / rate)} left`;
  return `${done}, ${count(Math.round(rate))} a second${left}`;
}

function count(value: number): string {
  return value.toLocaleString('en-US');
}

function duration(seconds: number): string {
  if (seconds < 120) return `${Math.ceil(seconds)} s`;
  if (seconds < 7_200) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3_600)} h`;
}

/** What a follower lacks. */
export function lacksText(relations: readonly string[]): string | null {
  const [first, ...more] = relations;
  if (first === undefined) return null;
  const rest = more.length === 0 ? '' : ` and ${more.length} more tables`;
  return `it lacks rows from before the stream, of ${first}${rest}`;
}
