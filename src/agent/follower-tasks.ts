/**
 * What ends an agent's following: a request for its node, or the LSN at which it is to stop. It
 * gives the next task of the follower, and does those that need no other role: to detach the node,
 * and to begin a rebuild.
 */
import { ownerOf } from '../control/claim.ts';
import { answerable } from '../errors/answers.ts';
import { notExactAt } from '../errors/follower.ts';
import type { NodeAccess } from '../fleet/node/node-access.ts';
import type { RequestDesk } from '../fleet/node/request-desk.ts';
import { type AgentRequest, targetOf, wayOf } from '../fleet/node/requests.ts';
import { detachNode, requirePosition } from '../fleet/operations/detach-steps.ts';
import type { FollowerAtWork } from '../fleet/provision/following.ts';
import { beginRebuild } from '../fleet/provision/rebuilding.ts';
import { openBuild } from '../follower/schema/schema-build.ts';

/**
 * How an attempt ended that did not fail: the next one serves the node in the role that it has by
 * then; or it has stopped at its LSN; or it was detached.
 */
export type AttemptEnd = 'next' | 'stopped' | 'detached';

const schemaPollMs = 200;

/**
 * A request, `stopped` once the follower has stopped at `until`, or null: when it ended itself, or
 * when the epoch is this node's, by a claim that was given up and is in the log all the same.
 */
export async function nextTask(
  node: NodeAccess,
  desk: RequestDesk,
  { follower, ended: followerEnded }: FollowerAtWork,
): Promise<AgentRequest | 'stopped' | null> {
  const { until } = node;
  const owning = new Owning(node);
  const ended = Promise.race([followerEnded, owning.begun]);
  try {
    return await taskUntil(node, desk, { follower, ended }, until);
  } finally {
    owning.stop();
  }
}

/** Resolves once the control log says that the node owns the epoch. */
class Owning {
  readonly begun: Promise<void>;
  stop: () => void = () => undefined;

  constructor({ control, name }: Pick<NodeAccess, 'control' | 'name'>) {
    this.begun = new Promise((resolve) => {
      const look = (): void => {
        if (ownerOf(control.state)?.node === name) resolve();
      };
      this.stop = control.onChange(look);
      look();
    });
  }
}

async function taskUntil(
  node: NodeAccess,
  desk: RequestDesk,
  { follower, ended }: Pick<FollowerAtWork, 'follower' | 'ended'>,
  until: NodeAccess['until'],
): Promise<AgentRequest | 'stopped' | null> {
  if (until === null) return desk.serve(follower, ended);
  const limit = { kind: 'to', at: until } as const;
  let isOver = false;
  const over = (): void => {
    isOver = true;
  };
  ended.then(over, over);
  const stopped = follower.pauseAt(limit).then(async (position): Promise<'stopped' | null> => {
    if (position === null) return null;
    requirePosition(node.name, position.at, until);
    if (!follower.exact) throw notExactAt(node.name, until);
    // A new node is left complete: the building of its schema ends with the follower.
    // rule: stop-with-whole-schema
    while (!isOver && (await openBuild(node.client)) !== null) {
      await node.cluster.around.sleep(schemaPollMs);
    }
    return isOver ? null : 'stopped';
  });
  return Promise.race([stopped, desk.serve(follower, ended, limit)]);
}

/** A refusal changes nothing; after a later failure the next `detach` continues. */
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
    return 'next';
  }
}

/** The next attempt continues the rebuild; a refusal changes nothing. */
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
  return 'next';
}
