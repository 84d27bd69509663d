/**
 * A leader that restarts. It continues its epoch with its slot where the log ends; where its last
 * batch is torn, or another node claimed the next epoch and did not begin it, it begins another
 * epoch there. Its checks of the log serve every candidate that
 * has led: a log without its epoch begin, or of another stream, is not its own.
 */
import { ledElsewhere } from '../../catalog/understudy-schema.ts';
import type { UnfinishedTable } from '../../change/change.ts';
import type { Lsn } from '../../change/lsn.ts';
import { bug } from '../../errors/bug.ts';
import { deposed, serverChanged } from '../../errors/ownership.ts';
import { topicRecreated } from '../../errors/topic.ts';
import { readPosition } from '../../follower/state/follower-state.ts';
import { listSlots, newestSlot } from '../../leader/stream/slot.ts';
import type { Watermarks } from '../../topic/log.ts';
import { holdsBegin, readLogEnd } from '../../topic/log-end.ts';
import type { LogEnd } from '../../topic/partition-tails.ts';
import { slotName, slotPattern } from '../../topic/records/layout.ts';
import type { NodeAccess } from '../node/node-access.ts';
import type { Candidate } from './promotion-steps.ts';

export class LeaderRestart implements Candidate {
  readonly endsItsEpoch: boolean = false;
  readonly sequences = [];
  readonly lacks = [];
  readonly #node: NodeAccess;

  constructor(node: NodeAccess) {
    this.#node = node;
  }

  async prepare(): Promise<void> {
    const { client, server, name } = this.#node;
    const led = await ledElsewhere(client, name, server);
    if (led !== null) throw serverChanged(name, led, server);
  }

  /** With which it last led; whether it still exists is checked before the stream starts. */
  async slotFor(epoch: number): Promise<{ readonly slot: string; readonly exists: boolean }> {
    const { client, cluster } = this.#node;
    const newest = newestSlot(await listSlots(client, slotPattern(cluster.name)), epoch);
    return { slot: newest ?? slotName(cluster.name, epoch), exists: true };
  }

  checkLog(end: LogEnd, watermarks: readonly Watermarks[]): Promise<void> {
    return requireLedLog(this.#node, end, watermarks);
  }

  drain(ends: readonly Watermarks[]): Promise<LogEnd> {
    return drainLedLog(this.#node, ends);
  }

  async startLsn({ checkpoint }: LogEnd): Promise<Lsn> {
    if (checkpoint === null) throw bug('the log of a leader holds a checkpoint');
    return checkpoint.at.lsn;
  }

  async backfilling({ unfinished }: LogEnd): Promise<readonly UnfinishedTable[]> {
    return unfinished;
  }
}

export async function drainLedLog(node: NodeAccess, ends: readonly Watermarks[]): Promise<LogEnd> {
  const end = await readLogEnd(node.reader, node.decoder, ends);
  requireOwnStream(node, end);
  requireOwnEpoch(node, end);
  return end;
}

/**
 * A node that led holds exactly what the log holds of its epoch, and its own LSNs continue it. Past
 * an epoch that another node has begun, its rows are others.
 */
function requireOwnEpoch({ control, name }: LedNode, { checkpoint }: LogEnd): void {
  if (checkpoint === null) return;
  const leader = control.state.claims[checkpoint.at.epoch - 1]?.node ?? null;
  if (leader !== name) throw deposed(name, leader);
}

type LedNode = Pick<NodeAccess, 'control' | 'name' | 'identity' | 'reader' | 'decoder'>;

/**
 * A former leader may lead again as long as no later epoch has begun: the node that claimed the
 * next one may have died with its claim. What this node committed past the base is published then.
 */
export async function requireUnsucceeded(node: LedNode): Promise<void> {
  const { reader, decoder, identity, name } = node;
  const end = await readLogEnd(reader, decoder, await reader.watermarks());
  requireOwnEpoch(node, end);
  if (end.checkpoint?.at.epoch !== identity.epoch) throw deposed(name, null);
}

/** A node that led has read its epoch begin back: it is in every log of this stream. */
function requireOwnStream({ identity, name }: NodeAccess, end: LogEnd): void {
  const { streamId } = identity;
  const found = end.checkpoint === null ? null : ((end.point ?? end.begin)?.streamId ?? streamId);
  if (found === streamId) return;
  const what = found === null ? 'no point' : `the stream ${found}`;
  const facts = { node: name, streamId, found };
  throw topicRecreated(`node ${name} led the stream ${streamId}; the topic holds ${what}`, facts);
}

/**
 * The end alone is no proof: an agent that did not notice that its topic was re-created has written
 * an end there that is its own.
 */
export async function requireLedLog(
  node: NodeAccess,
  end: LogEnd,
  watermarks: readonly Watermarks[],
): Promise<void> {
  requireOwnStream(node, end);
  const { client, reader, decoder, name } = node;
  const began = await readPosition(client);
  if (began === null || (await holdsBegin(reader, decoder, watermarks, began))) return;
  const { at, nextOffsets } = began.checkpoint;
  const offsets = nextOffsets.join(', ');
  throw topicRecreated(
    `epoch ${at.epoch}, which node ${name} led, began right before the offsets ${offsets}; the ` +
      'topic holds no begin there',
    { node: name, epoch: at.epoch, offsets },
  );
}
