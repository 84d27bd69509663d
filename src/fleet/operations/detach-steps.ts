/**
 * The steps of a detach: they make a follower a database of its own, which holds exactly the
 * transactions that committed below one position. They need a node whose lock is held, and its
 * follower where one runs. The database accepts writes only once nothing can be applied to it any
 * more. Every step may be repeated: another process that finds the saved position continues.
 */
import { type Client, DatabaseError } from 'pg';
import { inTransaction } from '../../catalog/postgres-session.ts';
import { dropPublication } from '../../catalog/publication.ts';
import { dropRowFunctions } from '../../catalog/row-roles.ts';
import { dropUnderstudySchema } from '../../catalog/understudy-schema.ts';
import { compareEpochLsn, type EpochLsn, formatEpochLsn } from '../../change/position.ts';
import { ownerOf } from '../../control/claim.ts';
import type { ControlLog } from '../../control/control-log.ts';
import { backfillingAt, notExact, schemaUnfinished } from '../../errors/follower.ts';
import {
  alreadyPast,
  leaderNotDetachable,
  noSuchPosition,
  notFollower,
} from '../../errors/node-state.ts';
import { detachInterrupted, schemaInUse } from '../../errors/timed-out.ts';
import { hit } from '../../failpoints.ts';
import { openBuild } from '../../follower/schema/schema-build.ts';
import { readPosition, saveDetached } from '../../follower/state/follower-state.ts';
import { isBeingBuilt } from '../../follower/state/rebuild-state.ts';
import { removeGuard, restoreTriggers } from '../../follower/write-guard.ts';
import { dropSlot, listSlots } from '../../leader/stream/slot.ts';
import { publicationName, slotPattern } from '../../topic/records/layout.ts';
import type { Cluster } from '../cluster.ts';
import type { NodeAccess } from '../node/node-access.ts';
import { type BoundedLists, boundedLists } from '../promotion/answer-bounds.ts';
import { beforeClaimMs, SequenceSetter } from '../promotion/sequences.ts';
import { type StepTime, StepTimes } from '../promotion/step-times.ts';
import type { FollowerAtWork } from '../provision/following.ts';
import { backfillingText, openBuildTexts } from '../status/progress-text.ts';

/** The JSON of detach. Nothing is discarded: the other nodes have the log beyond `lsn`. */
export interface DetachResult extends BoundedLists {
  readonly node: string;
  readonly epoch: number;
  readonly lsn: string;
  readonly discarded: null;
  readonly rpo: { readonly transactions: null; readonly bytes: null };
  readonly steps: readonly StepTime[];
}

/** Where the answer names the first of them alone. */
const allSequences = 'all sequences that were set';

/** A node whose detach position is saved: it no longer follows. */
interface DetachedNode {
  readonly cluster: Cluster;
  readonly control: ControlLog;
  readonly name: string;
  /** Of the replica role, past the write guard. */
  readonly client: Client;
}

/** Sessions that wait for a token use the schema for as long as they wait. */
const schemaLockMs = 30_000;

/** `to` is null for the node's own position. */
export async function detachNode(
  node: NodeAccess,
  following: FollowerAtWork | null,
  to: EpochLsn | null,
): Promise<DetachResult> {
  const steps = new StepTimes(node.cluster.around.nowMs);
  if (ownerOf(node.control.state)?.node === node.name) throw leaderNotDetachable(node.name);
  steps.begin('stop');
  // rule: guard-until-detach-is-recorded
  const at = await stopExactly(node, following, to);
  await hit('detach.after-stop');
  // rule: detached-is-recorded
  await saveDetached(node.client, at);
  await hit('detach.after-mark');
  return finishDetaching(node, at, steps);
}

/** The node is at `at`, which is saved as its detach position: it no longer follows. */
export async function finishDetaching(
  { cluster, control, name, client }: DetachedNode,
  at: EpochLsn,
  steps: StepTimes = new StepTimes(cluster.around.nowMs),
): Promise<DetachResult> {
  if (!control.state.detached.has(name)) {
    const { randomId, nowMs } = cluster.around;
    const time = new Date(nowMs()).toISOString();
    await control.append({ kind: 'detach', id: randomId(), node: name, at, time });
  }
  await hit('detach.after-record');
  steps.begin('sequences');
  const { nowMs, log } = cluster.around;
  const setter = new SequenceSetter(client, nowMs);
  await setter.advance(beforeClaimMs);
  const { changes: sequences, lacks } = setter;
  const bounded = boundedLists({ sequences, lacks });
  if (lacks.length > 0)
    log.warn({ node: name, lacks }, 'sequences may give values that are in use');
  if (bounded.leftOut.sequences > 0) log.info({ node: name, sequences }, allSequences);
  await hit('detach.after-sequences');
  steps.begin('triggers');
  await restoreTriggers(client);
  steps.begin('guard');
  for (const slot of await listSlots(client, slotPattern(cluster.name))) {
    await dropSlot(client, slot);
  }
  await dropPublication(client, publicationName(cluster.name));
  await removeGuard(client);
  await hit('detach.after-guard');
  steps.begin('schema');
  await dropSchema(client, name);
  return { ...detachedResult(name, at), ...bounded, steps: steps.end() };
}

/** The answer for a node whose detach was completed before. */
export function detachedResult(node: string, at: EpochLsn): DetachResult {
  return {
    node,
    epoch: at.epoch,
    lsn: formatEpochLsn(at),
    ...boundedLists({ sequences: [], lacks: [] }),
    discarded: null,
    rpo: { transactions: null, bytes: null },
    steps: [],
  };
}

/**
 * Stops the follower at `to`, and returns the position of the node's rows, which are exact there.
 */
async function stopExactly(
  { name, client, identity }: NodeAccess,
  following: FollowerAtWork | null,
  to: EpochLsn | null,
): Promise<EpochLsn> {
  await hit('detach.before-stop');
  // Before the follower moves: it cannot move backwards.
  await requireBuilt(name, client);
  if (following !== null) {
    const { follower, ended } = following;
    const pausing = follower.pauseAt(to === null ? { kind: 'hold' } : { kind: 'to', at: to });
    // Changes below the position are needed now, however young they are.
    if (to !== null) follower.dropDelay();
    const position = await pausing;
    if (position === null) throw detachInterrupted(name);
    requirePosition(name, position.at, to);
    follower.stop();
    await ended;
  }
  await requireBuilt(name, client);
  const at = await exactPosition(name, client, identity.streamId);
  requirePosition(name, at, to);
  return at;
}

/** Until a node is built its rows are those of no moment. */
export async function requireBuilt(node: string, client: Client): Promise<void> {
  if (await isBeingBuilt(client)) throw notExact(node);
  const open = await openBuild(client);
  if (open === null) return;
  // A statement that this server refuses stays refused: status and the agent's log name it.
  const isUnderWay = open.done + open.refused.length < open.total;
  // rule: detach-with-whole-schema
  if (isUnderWay) throw schemaUnfinished(node, openBuildTexts(open));
}

/** Only rows that are those of one moment make a database. */
async function exactPosition(node: string, client: Client, streamId: string): Promise<EpochLsn> {
  const position = await readPosition(client);
  if (position?.streamId !== streamId) throw notFollower(node);
  const backfilling = backfillingText(position.unfinished);
  if (backfilling !== null) throw backfillingAt(node, position.at, backfilling);
  return position.at;
}

/**
 * Throws where the node, told to stop at `to`, is past it, or where the log has no such position.
 */
export function requirePosition(node: string, at: EpochLsn, to: EpochLsn | null): void {
  const order = to === null ? 0 : compareEpochLsn(at, to);
  if (to === null || order === 0) return;
  const [here, there] = [formatEpochLsn(at), formatEpochLsn(to)];
  throw order > 0 ? alreadyPast(node, here, there) : noSuchPosition(node, here, there);
}

const lockNotAvailable = '55P03';

async function dropSchema(client: Client, node: string): Promise<void> {
  try {
    await dropRowFunctions(client);
    await inTransaction(client, async () => {
      await client.query(`SET LOCAL lock_timeout = ${schemaLockMs}`);
      await dropUnderstudySchema(client);
    });
  } catch (error) {
    if (!(error instanceof DatabaseError) || error.code !== lockNotAvailable) throw error;
    throw schemaInUse(node, error);
  }
}
