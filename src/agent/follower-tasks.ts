/**
 * What ends an agent's following. Flows in: the requests for its node, and the place where it is to
 * stop; flows out: the next thing to do with the follower, and the answer to who asked to detach
 * the node.
 */
import { type EpochLsn, formatEpochLsn } from '../change/position.ts';
import { answerable } from '../errors/bug.ts';
import { UnderstudyError } from '../errors/understudy-error.ts';
import type { NodeAccess } from '../fleet/node/node-access.ts';
import { type AgentRequest, type RequestDesk, targetOf, wayOf } from '../fleet/node/requests.ts';
import { detachNode, requirePosition } from '../fleet/operations/detach-steps.ts';
import type { FollowerAtWork } from '../fleet/provision/following.ts';
import { beginRebuild } from '../fleet/provision/rebuilding.ts';
import { openBuild } from '../follower/schema/schema-build.ts';

/**
 * How an attempt ended that did not fail: the node is to be served on, in whatever role it has by
 * then; or it stands where it was to stop; or it is no node any more.
 */
export type AttemptEnd = 'again' | 'there' | 'detached';

const schemaLookMs = 200;

/** Of a node whose building was begun for another place. */
function notExactThere(node: string, until: EpochLsn): UnderstudyError {
  return new UnderstudyError(
    'UNFINISHED',
    `node ${node} stands at ${formatEpochLsn(until)} and is not exact: it was begun for the end ` +
      'of the log',
    `Let it go on (understudy run ${node}), or give it a new database and run this again.`,
  );
}

/** A request, `there` once the follower stands at `until`, or null when it ended by itself. */
export async function nextTask(
  node: NodeAccess,
  desk: RequestDesk,
  { follower, ended }: FollowerAtWork,
): Promise<AgentRequest | 'there' | null> {
  const { until } = node;
  if (until === null) return desk.serve(follower, ended);
  const limit = { kind: 'to', at: until } as const;
  let isOver = false;
  const over = (): void => {
    isOver = true;
  };
  ended.then(over, over);
  const there = follower.pauseAt(limit).then(async (position): Promise<'there' | null> => {
    if (position === null) return null;
    requirePosition(node.name, position.at, until);
    if (!follower.exact) throw notExactThere(node.name, until);
    // A new node is left whole: what builds the rest of its schema ends with the follower.
    while (!isOver && (await openBuild(node.client)) !== null) {
      await node.cluster.around.sleep(schemaLookMs);
    }
    return isOver ? null : 'there';
  });
  return Promise.race([there, desk.serve(follower, ended, limit)]);
}

/** A refusal changes nothing; whatever fails later the next `detach` goes on with. */
export async function answerDetach(
  node: NodeAccess,
  desk: RequestDesk,
  following: FollowerAtWork,
  request: AgentRequest,
): Promise<AttemptEnd> {
  const { name, cluster } = node;
  try {
    const result = await detachNode(node, following, targetOf(request));
    await desk.answer(request, { ...result }, null);
    cluster.around.log.info({ node: name, at: result.lsn }, 'detached');
    return 'detached';
  } catch (error) {
    await desk.answer(request, null, answerable(error));
    cluster.around.log.warn({ node: name, error }, 'not detached');
    return 'again';
  }
}

/** From here on the node is built anew; a refusal changes nothing. */
export async function answerRebuild(
  node: NodeAccess,
  desk: RequestDesk,
  request: AgentRequest,
): Promise<AttemptEnd> {
  try {
    const result = await beginRebuild(node, wayOf(request), 'it was asked for');
    await desk.answer(request, { ...result }, null);
  } catch (error) {
    await desk.answer(request, null, answerable(error));
    node.cluster.around.log.warn({ node: node.name, error }, 'not rebuilt');
  }
  return 'again';
}

/** Of a node that is being built anew. */
export function standsNowhere(node: string): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `node ${node} is being rebuilt: it will stand where the log ends then`,
    `Start it without --until: understudy run ${node}`,
  );
}

/** Of a leader that was to stop at a place. */
export function stopsNowhere(node: string): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `node ${node} leads: only a follower can go to a place and stop there`,
    `Start it without --until: understudy run ${node}`,
  );
}
