/**
 * Builds what a follower's tables still lack, once its rows are exact, beside its applier. Flows
 * in: a follower at work and what its database says is left; flows out: indexes, constraints,
 * triggers and the rest, one after the other in a session of their own. Whoever stops the follower
 * stops this; the next start goes on with the statement that was running.
 */
import type { Follower } from '../follower/follower.ts';
import { buildPostData, openBuild } from '../follower/schema-build.ts';
import type { Releasers } from '../lifecycle.ts';
import type { NodeAccess } from './node-access.ts';
import { schemaBuildOptions } from './schema-building.ts';

/** Becoming exact takes from seconds to hours. */
const exactPollMs = 500;

/** Settles when the follower has ended, with its error, or with that of the building. */
export async function followAndBuild(
  node: NodeAccess,
  releasers: Releasers,
  follower: Follower,
): Promise<void> {
  const stopping = new AbortController();
  const isExact = (): boolean => follower.exact && follower.position.unfinished.length === 0;
  const following = follower.run().finally(() => stopping.abort());
  const building = finishSchema(node, releasers, stopping.signal, isExact).catch(
    (error: unknown) => {
      follower.stop();
      throw error;
    },
  );
  for (const ended of await Promise.allSettled([following, building])) {
    if (ended.status === 'rejected') throw ended.reason;
  }
}

async function finishSchema(
  node: NodeAccess,
  releasers: Releasers,
  signal: AbortSignal,
  isExact: () => boolean,
): Promise<void> {
  const { cluster, name } = node;
  const { log, sleep } = cluster.around;
  const open = await openBuild(node.client);
  if (open === null) return;
  log.info({ node: name, ...open }, 'building the schema');
  while (!isExact()) {
    if (signal.aborted) return;
    await sleep(exactPollMs);
  }
  // A session of its own: the applier goes on meanwhile.
  const client = await cluster.openSession(releasers, name, 'schema');
  const end = (): void => {
    // A long statement is given up: its transaction is rolled back.
    client.end().catch((error: unknown) => log.debug({ node: name, error }, 'ended the building'));
  };
  signal.addEventListener('abort', end);
  try {
    await buildPostData(client, { ...schemaBuildOptions(cluster, name), signal });
    if (!signal.aborted) log.info({ node: name }, 'the schema is whole');
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    signal.removeEventListener('abort', end);
  }
}
