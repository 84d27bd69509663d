/**
 * How the schema is built on a node, as its agent and `init` do it. Flows in: a cluster and a node;
 * flows out: what the builder needs, which tells in the log how far it is and what it left out.
 */
import { UnderstudyError } from '../errors.ts';
import type { BuildOptions, BuildProgress } from '../follower/schema-build.ts';
import type { Cluster } from './cluster.ts';

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
  };
}

/** `post-data is being built: 3 of 17`; why the node cannot lead yet. */
export function openBuildText({ phase, done, total }: BuildProgress): string {
  return `its ${phase} is being built: ${done} of ${total}`;
}

/** A leader without its unique indexes and triggers would take what its followers refuse. */
export function requireWholeSchema(node: string, open: BuildProgress | null): void {
  if (open === null) return;
  throw new UnderstudyError(
    'NOT_PROMOTABLE',
    `node ${node} lacks a part of the schema: ${openBuildText(open)}`,
    'Wait until understudy status shows it promotable, or choose another node.',
  );
}
