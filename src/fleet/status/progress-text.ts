/**
 * How far a node is that is not complete, in words: its build or rebuild from the log, its schema,
 * and its backfill. One line for `status`, and for errors that refuse such a node. Pure.
 */
import type { SchemaChange } from '../../catalog/schema-changes.ts';
import type { UnfinishedTable } from '../../change/change.ts';
import { unreachable } from '../../errors/bug.ts';
import { schemaIncomplete } from '../../errors/ownership.ts';
import type { OpenBuild, Refusal } from '../../follower/schema/schema-build.ts';
import { type BootstrapState, shareRead } from '../../follower/state/bootstrap-state.ts';
import type { PendingRebuild } from '../../follower/state/rebuild-state.ts';

/** `isAtEnd`: whether it has applied all that the log holds. */
export function buildingText(state: BootstrapState, isAtEnd: boolean): string {
  const rows = count(state.rows);
  if (state.horizon === null) {
    const percent = Math.floor(shareRead(state) * 100);
    return `it is being built from the log: ${percent} % read, ${rows} rows`;
  }
  if (!isAtEnd) {
    return `it is being built from the log: ${rows} rows read, not exact before the end of the log`;
  }
  return (
    'it is being built from the log and has read all of it, but rows are missing: it becomes ' +
    'exact once a leader has published them'
  );
}

/** For a node whose old database serves readers meanwhile, or is about to be emptied. */
export function rebuildText({ way, reason, progress }: PendingRebuild): string {
  if (way === 'in-place') return `it is about to be rebuilt in its own tables: ${reason}`;
  const beside = 'it is being rebuilt beside its old database, which serves readers as it is';
  return `${beside}: ${rebuildProgress(progress)}; reason: ${reason}`;
}

function rebuildProgress(progress: PendingRebuild['progress']): string {
  if (progress === null) return 'about to begin';
  const rows = `${count(progress.rows)} rows`;
  switch (progress.phase) {
    case 'reading':
      return `${progress.percent} % read, ${rows}`;
    case 'following':
      return 'read, and following the log to its end';
    case 'schema':
      return `exact, and ${progress.percent} % of the rest of its schema is built`;
    case 'swap':
      return 'built, and replacing the old one';
    default:
      return unreachable(progress.phase);
  }
}

/** `its post-data is being built: 3 of 17`, and the statements that its Postgres refuses. */
export function openBuildTexts({ phase, done, total, refused }: OpenBuild): string[] {
  const isUnderWay = done + refused.length < total;
  const underWay = isUnderWay ? [`its ${phase} is being built: ${done} of ${total}`] : [];
  const lacks = refusedTexts(refused).map((text) => `SCHEMA_BUILD_FAILED: it lacks ${text}`);
  return [...underWay, ...lacks];
}

/** `CREATE INDEX i ON public.t: could not …` */
export function refusedTexts(refused: readonly Refusal[]): string[] {
  return refused.map(({ what, reason }) => `${what}: ${reason}`);
}

/** The parts of the schema that the node would lead without: refused, or created NOT VALID. */
export function lackTexts(open: OpenBuild | null, notValid: readonly string[]): string[] {
  const reason = 'NOT VALID, rows here refer to rows that it does not have';
  return [
    ...refusedTexts(open?.refused ?? []),
    ...notValid.map((name) => `the foreign key ${name} as on the leader: ${reason}`),
  ];
}

/** A leader without its unique indexes and triggers would accept what its followers refuse. */
export function requireSchemaBuilt(node: string, open: OpenBuild | null): void {
  if (open === null || open.done + open.refused.length === open.total) return;
  throw schemaIncomplete(node, openBuildTexts(open));
}

/** A backfilling table, as status shows it. */
export interface UnfinishedStatus {
  readonly table: string;
  readonly rows: number;
  readonly estimate: number | null;
}

export function unfinishedStatus(table: UnfinishedTable): UnfinishedStatus {
  const { relation, rows, estimate } = table;
  return { table: relation, rows, estimate };
}

/** The progress of the leader, with the rate and the time left; null where nothing is left. */
export function backfillText(tables: readonly UnfinishedTable[], nowMs: number): string | null {
  const [first, ...more] = tables;
  if (first === undefined) return null;
  const rest = more.length === 0 ? '' : `; tables not yet read: ${more.length}`;
  return `backfilling ${tableProgress(first, nowMs)}${rest}`;
}

function tableProgress(table: UnfinishedTable, nowMs: number): string {
  const { relation, rows, estimate, since } = table;
  const of = estimate === null || estimate < rows ? '' : ` of about ${count(estimate)}`;
  const done = `${relation}: ${count(rows)}${of} rows`;
  const seconds = since === null ? 0 : (nowMs - since) / 1_000;
  if (seconds < 1 || rows === 0) return done;
  const rate = rows / seconds;
  const left = of === '' ? '' : `, ${duration(((estimate ?? 0) - rows) / rate)} left`;
  return `${done}, ${count(Math.round(rate))} a second${left}`;
}

/** Changes at which the leader's stream stops, or has stopped. */
export function schemaChangeTexts(changes: readonly SchemaChange[]): string[] {
  return changes.map(({ table, what, atOnce, changedAt }) => {
    const at = changedAt === null ? '' : ` at ${changedAt}`;
    const stops = atOnce ? 'the stream stops' : 'the stream stops at the next row';
    return `schema of ${table} changed${at}: ${what}; ${stops}`;
  });
}

/** The tables of a follower that are not complete; null where there is none. */
export function backfillingText(relations: readonly string[]): string | null {
  const [first, ...more] = relations;
  if (first === undefined) return null;
  if (more.length === 0) return `${first} is backfilling`;
  const rest = more.length === 1 ? '1 more table' : `${more.length} more tables`;
  return `${first} and ${rest} are backfilling`;
}

function count(value: number): string {
  return value.toLocaleString('en-US');
}

function duration(seconds: number): string {
  if (seconds < 120) return `${Math.ceil(seconds)} s`;
  if (seconds < 7_200) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3_600)} h`;
}
