/**
 * Every workload there is, and what a test needs to know of some of them together: the SQL before
 * and after init, and the names of their tables.
 */
import { bank } from './bank.ts';
import { entries } from './entries.ts';
import { lists } from './lists.ts';
import { lives } from './lives.ts';
import { longTransactions } from './long-transactions.ts';
import { moves } from './moves.ts';
import { pairs } from './pairs.ts';
import { versions } from './versions.ts';
import type { Workload } from './workload.ts';

export const allWorkloads: readonly Workload[] = [
  ...[bank, lists, entries, versions, lives, moves, pairs, longTransactions],
];

/** For every node, before init. */
export function tablesOf(workloads: readonly Workload[]): string {
  return workloads.map(({ tables }) => tables).join(';\n');
}

/** For the leader, after init; in one transaction when sent as one query. */
export function rowsOf(workloads: readonly Workload[]): string {
  return workloads.flatMap(({ rows }) => (rows === undefined ? [] : [rows])).join(';\n');
}

export function tableNamesOf(workloads: readonly Workload[]): readonly string[] {
  return workloads.flatMap(({ tableNames }) => tableNames);
}
