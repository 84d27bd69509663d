/**
 * Makes a follower a database of its own. Flows in: a node whose lock is held, its follower where
 * one is at work, and the place to stop at; flows out: an ordinary database that holds exactly what
 * was committed below that place. It takes writes only once nothing can be applied to it any more,
 * and every step may be repeated: whoever finds a node that is marked goes on from there.
 */
import { type Client, DatabaseError } from 'pg';
import { inTransaction } from '../../catalog/postgres-session.ts';
import { dropPublication } from '../../catalog/publication.ts';
import { dropUnderstudySchema } from '../../catalog/understudy-schema.ts';
import { compareEpochLsn, type EpochLsn, formatEpochLsn } from '../../change/position.ts';
import { ownerOf } from '../../control/claim.ts';
import type { ControlLog } from '../../control/control-log.ts';
import { notExact } from '../../errors/follower.ts';
import { UnderstudyError } from '../../errors/understudy-error.ts';
import { hit } from '../../failpoints.ts';
import { type OpenBuild, openBuild } from '../../follower/schema/schema-build.ts';
import { restoreTriggers } from '../../follower/schema/suspended-triggers.ts';
import {
  type FollowerPosition,
  readPosition,
  saveDetached,
} from '../../follower/state/follower-state.ts';
import { isBeingBuilt } from '../../follower/state/rebuild-state.ts';
import { removeGuard } from '../../follower/write-guard.ts';
import { dropSlot, listSlots } from '../../leader/stream/slot.ts';
import { publicationName, slotPrefix } from '../../topic/records/layout.ts';
import type { Cluster } from '../cluster.ts';
import type { NodeAccess } from '../node/node-access.ts';
import { advanceSequences, type SequenceChange } from '../promotion/sequences.ts';
import { type StepTime, StepTimes } from '../promotion/step-times.ts';
import type { FollowerAtWork } from '../provision/following.ts';
import { backfillingText, openBuildTexts } from '../status/progress-text.ts';

/** The JSON of detach. What the log holds beyond `lsn` is not discarded: the others have it. */
export interface DetachResult {
  readonly node: string;
  readonly epoch: number;
  readonly lsn: string;
  readonly sequences: readonly SequenceChange[];
  readonly discarded: null;
  readonly rpo: { readonly transactions: null; readonly bytes: null };
  readonly steps: readonly StepTime[];
}

/** A node that is marked, and with what its detaching goes on. */
interface MarkedNode {
  readonly cluster: Cluster;
  readonly control: ControlLog;
  readonly name: string;
  /** Of the replica role, past the write guard. */
  readonly client: Client;
}

/** Sessions that wait for a token hold the schema for as long as they wait. */
const schemaLockMs = 30_000;

/** `to` is null for the place where the node stands. */
export async function detachNode(
  node: NodeAccess,
  following: FollowerAtWork | null,
  to: EpochLsn | null,
): Promise<DetachResult> {
  const steps = new StepTimes(node.cluster.around.nowMs);
  if (ownerOf(node.control.state)?.node === node.name) throw leads(node.name);
  steps.begin('stop');
  const at = await standExactly(node, following, to);
  await hit('detach.after-stop');
  await saveDetached(node.client, at);
  await hit('detach.after-mark');
  return finishDetaching(node, at, steps);
}

/** The node stands at `at` and is marked: it follows no more. */
export async function finishDetaching(
  { cluster, control, name, client }: MarkedNode,
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
  const { tables } = cluster.settings;
  const sequences = await inTransaction(client, () => advanceSequences(client, tables));
  await hit('detach.after-sequences');
  steps.begin('triggers');
  await restoreTriggers(client);
  steps.begin('guard');
  for (const slot of await listSlots(client, slotPrefix(cluster.name))) {
    await dropSlot(client, slot);
  }
  await dropPublication(client, publicationName(cluster.name));
  await removeGuard(client);
  await hit('detach.after-guard');
  steps.begin('schema');
  await dropSchema(client, name);
  return { ...detachedResult(name, at), sequences, steps: steps.end() };
}

/** What is told of a node whose detaching has ended before. */
export function detachedResult(node: string, at: EpochLsn): DetachResult {
  return {
    node,
    epoch: at.epoch,
    lsn: formatEpochLsn(at),
    sequences: [],
    discarded: null,
    rpo: { transactions: null, bytes: null },
    steps: [],
  };
}

async function standExactly(
  { name, client, identity }: NodeAccess,
  following: FollowerAtWork | null,
  to: EpochLsn | null,
): Promise<EpochLsn> {
  // Before it moves: rows do not go back.
  await requireBuilt(name, client);
  if (following !== null) {
    const { follower, ended } = following;
    const stands = follower.pauseAt(to === null ? { kind: 'hold' } : { kind: 'to', at: to });
    // What lies before the place is wanted now, however young it is.
    if (to !== null) follower.dropDelay();
    const position = await stands;
    if (position === null) throw interrupted(name);
    requirePlace(name, position.at, to);
    follower.stop();
    await ended;
  }
  await requireBuilt(name, client);
  const { at } = requireWhole(name, await readPosition(client), identity.streamId);
  requirePlace(name, at, to);
  return at;
}

/** Until a node is exact its rows are those of no moment. */
export async function requireBuilt(node: string, client: Client): Promise<void> {
  if (await isBeingBuilt(client)) throw notExact(node);
  const open = await openBuild(client);
  if (open === null) return;
  // What this server refuses it will refuse for ever: status and the agent's log name it.
  if (open.done + open.refused.length < open.total) throw lacksSchema(node, open);
}

function lacksSchema(node: string, open: OpenBuild): UnderstudyError {
  return new UnderstudyError(
    'UNFINISHED',
    `node ${node} lacks a part of the schema: ${openBuildTexts(open).join('; ')}`,
    'Detach it once its agent has built it: understudy status shows when.',
  );
}

/** Only rows that are those of one moment make a database. */
function requireWhole(
  node: string,
  position: FollowerPosition | null,
  streamId: string,
): FollowerPosition {
  if (position?.streamId === streamId) {
    const lacks = backfillingText(position.unfinished);
    if (lacks === null) return position;
    throw new UnderstudyError(
      'UNFINISHED',
      `node ${node} at ${formatEpochLsn(position.at)} is not exact: ${lacks}`,
      'Detach it at a later place, or another node: understudy status shows which are exact.',
    );
  }
  throw new UnderstudyError(
    'PREREQUISITE',
    `node ${node} does not stand in this stream: its rows are those of no place`,
    'See what became of it: understudy status',
  );
}

/** Where a node stands that was to stand at `to`: it was past it, or there is no such place. */
export function requirePlace(node: string, at: EpochLsn, to: EpochLsn | null): void {
  const order = to === null ? 0 : compareEpochLsn(at, to);
  if (to === null || order === 0) return;
  const here = `node ${node} stands at ${formatEpochLsn(at)}`;
  if (order > 0) {
    throw new UnderstudyError(
      'PREREQUISITE',
      `${here}, past ${formatEpochLsn(to)}: rows do not go back`,
      'Choose a node that is further behind (understudy status), or build a new one and stop it ' +
        `there: understudy run <node> --until ${formatEpochLsn(to)}`,
    );
  }
  throw new UnderstudyError(
    'PREREQUISITE',
    `${here}, and the stream has no ${formatEpochLsn(to)}: another epoch begins there`,
    'Name a place before it: understudy points, understudy status',
  );
}

export function leads(node: string): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `node ${node} leads: what it writes is what the others follow`,
    'Detach a follower, or make the cluster again without the leader: understudy destroy',
  );
}

export function interrupted(node: string): UnderstudyError {
  return new UnderstudyError(
    'TIMED_OUT',
    `node ${node} was told to go elsewhere meanwhile`,
    'A verify asked it to stand still. Run understudy detach again.',
  );
}

const lockNotAvailable = '55P03';

async function dropSchema(client: Client, node: string): Promise<void> {
  try {
    await inTransaction(client, async () => {
      await client.query(`SET LOCAL lock_timeout = ${schemaLockMs}`);
      await dropUnderstudySchema(client);
    });
  } catch (error) {
    if (!(error instanceof DatabaseError) || error.code !== lockNotAvailable) throw error;
    throw new UnderstudyError(
      'TIMED_OUT',
      `somebody on node ${node} uses the schema understudy: a session waits for a token`,
      `End it (SELECT pid, query FROM pg_stat_activity), then again: understudy detach ${node}`,
      error,
    );
  }
}
