/**
 * How the schema is built on a node, as its agent and `init` do it. Flows in: a cluster and a node;
 * flows out: what the builder needs, which tells in the log how far it is and what it left out.
 */
import { UnderstudyError } from '../../errors/understudy-error.ts';
import type { BuildOptions, OpenBuild, Refusal } from '../../follower/schema/schema-build.ts';
import type { Cluster } from '../cluster.ts';

/** Often enough to see that it goes on. */
const progressEveryMs = 10_000;

export function schemaBuildOptions({ around }: Cluster, node: string): BuildOptions {
  const { log, nowMs, sleep } = around;
  let toldMs = nowMs();
  return {
    node,
    nowMs,
    sleep,
    onProgress: ({ phase, done, total }) => {
      if (done < total && nowMs() - toldMs < progressEveryMs) return;
      toldMs = nowMs();
      log.info({ node, phase, done, total }, 'building the schema');
    },
    onMissingRoles: (roles) => {
      log.warn(
        { node, roles },
        'owners and privileges were left out: these roles do not exist here',
      );
    },
    onNotValid: (foreignKeys) => {
      log.warn(
        { node, foreignKeys },
        'made NOT VALID: rows here refer to rows that this node does not have',
      );
    },
  };
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

/** What a node lacks that leads as it is: what it refuses, and what it could not make whole. */
export function lackTexts(open: OpenBuild | null, notValid: readonly string[]): string[] {
  const reason = 'NOT VALID, rows here refer to rows that it does not have';
  return [
    ...refusedTexts(open?.refused ?? []),
    ...notValid.map((name) => `the foreign key ${name} as on the leader: ${reason}`),
  ];
}

/** A leader without its unique indexes and triggers would take what its followers refuse. */
export function requireNothingToCome(node: string, open: OpenBuild | null): void {
  if (open === null || open.done + open.refused.length === open.total) return;
  throw new UnderstudyError(
    'NOT_PROMOTABLE',
    `node ${node} lacks a part of the schema: ${openBuildTexts(open).join('; ')}`,
    'Wait until understudy status shows it promotable, or choose another node.',
  );
}
