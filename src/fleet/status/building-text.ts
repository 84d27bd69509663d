/**
 * How far a node is that is being built from the log, in words. Flows in: the state of its
 * bootstrap; flows out: one line for `status`, and what keeps it from leading. Pure.
 */

import { unreachable } from '../../errors/bug.ts';
import { schemaIncomplete } from '../../errors/ownership.ts';
import type { OpenBuild, Refusal } from '../../follower/schema/schema-build.ts';
import { type BootstrapState, shareRead } from '../../follower/state/bootstrap-state.ts';
import type { PendingRebuild } from '../../follower/state/rebuild-state.ts';

/** `isAtEnd`: whether it has applied all that the log holds. */
export function buildingText(state: BootstrapState, isAtEnd: boolean): string {
  const rows = state.rows.toLocaleString('en-US');
  if (state.horizon === null) {
    const percent = Math.floor(shareRead(state) * 100);
    return `it is being built from the log: ${percent} % read, ${rows} rows`;
  }
  if (!isAtEnd) {
    return `it is being built from the log: ${rows} rows read, not exact before the end of the log`;
  }
  return (
    'it is being built from the log, which ends where rows are missing: it becomes exact once a ' +
    'leader has published them'
  );
}

/** The same of a node whose old database serves readers meanwhile, or is about to be emptied. */
export function rebuildText({ way, reason, progress }: PendingRebuild): string {
  if (way === 'in-place') return `it is about to be rebuilt in its own tables: ${reason}`;
  const beside = 'it is being rebuilt beside its old database, which serves readers as it is';
  return `${beside}: ${progressText(progress)}; why: ${reason}`;
}

function progressText(progress: PendingRebuild['progress']): string {
  if (progress === null) return 'about to begin';
  const rows = `${progress.rows.toLocaleString('en-US')} rows`;
  switch (progress.phase) {
    case 'reading':
      return `${progress.percent} % read, ${rows}`;
    case 'following':
      return 'read, and following the log to its end';
    case 'schema':
      return `exact, and ${progress.percent} % of the rest of its schema is made`;
    case 'swap':
      return 'built, and taking the place of the old one';
    default:
      return unreachable(progress.phase);
  }
}

/** `its post-data is being built: 3 of 17`, and what its Postgres refuses. */
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
