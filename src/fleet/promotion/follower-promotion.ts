/**
 * A follower that is promoted. Before the claim it applies what the log holds and finishes its
 * schema, so that a node that cannot is refused while the leader still leads. After the fence it
 * applies all that was ever committed, stops following, and begins the epoch at an LSN of its own.
 */
import { inTransaction } from '../../catalog/postgres-session.ts';
import type { UnfinishedTable } from '../../change/change.ts';
import type { Lsn } from '../../change/lsn.ts';
import { compareEpochLsn, type EpochLsn, formatEpochLsn } from '../../change/position.ts';
import { notAtLogEnd, notBuilt, notCaughtUp } from '../../errors/ownership.ts';
import { topicRecreated } from '../../errors/topic.ts';
import { notValidForeignKeys, openBuild } from '../../follower/schema/schema-build.ts';
import { listSlots, newestSlot } from '../../leader/stream/slot.ts';
import type { Watermarks } from '../../topic/log.ts';
import { readLogEnd } from '../../topic/log-end.ts';
import type { LogEnd } from '../../topic/partition-tails.ts';
import { slotName, slotPattern } from '../../topic/records/layout.ts';
import { withTimeout } from '../../waiting.ts';
import type { NodeAccess } from '../node/node-access.ts';
import type { FollowerAtWork } from '../provision/following.ts';
import { lackTexts, requireSchemaBuilt } from '../status/progress-text.ts';
import { type Candidate, flushedLsn } from './promotion-steps.ts';
import { requestBackfill, resnapshotRelations } from './resnapshot-tables.ts';
import { afterClaimMs, beforeClaimMs, type SequenceChange, SequenceSetter } from './sequences.ts';

/** A follower that is further behind than this is not the one to promote now. */
const catchUpTimeoutMs = 60_000;

export class FollowerPromotion implements Candidate {
  readonly endsItsEpoch: boolean = false;
  readonly #node: NodeAccess;
  readonly #following: FollowerAtWork;
  readonly #onStep: (step: string) => void;
  #isDrained = false;
  readonly #sequences: SequenceSetter;
  /** Up to where sequences were set before the claim. */
  #sequencesAt: EpochLsn | null = null;
  #schemaLacks: readonly string[] = [];

  constructor(node: NodeAccess, following: FollowerAtWork, onStep: (step: string) => void) {
    this.#node = node;
    this.#following = following;
    this.#onStep = onStep;
    this.#sequences = new SequenceSetter(node.client, node.cluster.around.nowMs);
  }

  get sequences(): readonly SequenceChange[] {
    return this.#sequences.changes;
  }

  get lacks(): readonly string[] {
    return [...this.#schemaLacks, ...this.#sequences.lacks];
  }

  /** An owner is past its claim: a crash interrupted its promotion. */
  async prepare(isOwner: boolean): Promise<void> {
    if (isOwner) return;
    await this.#catchUp();
    this.#onStep('schema');
    this.#schemaLacks = await this.#finishSchema();
    // Before the claim: while a table or a lock delays it, another node may still lead.
    this.#onStep('sequences');
    const { at } = this.#following.follower.position;
    await this.#sequences.advance(beforeClaimMs);
    if (this.#sequences.lacks.length === 0) this.#sequencesAt = at;
  }

  /** Also leaves less to drain after the fence. */
  async #catchUp(): Promise<void> {
    const { follower } = this.#following;
    const { reader, decoder, name } = this.#node;
    this.#onStep('catch up');
    const watermarks = await reader.watermarks();
    const drained = follower.drained(watermarks.map(({ lastStableOffset }) => lastStableOffset));
    await withTimeout(drained, catchUpTimeoutMs, () => notCaughtUp(name, catchUpTimeoutMs));
    if (!follower.exact) throw notBuilt(name);
    // In a topic that was re-created there is nothing to apply: this node would depose a healthy
    // leader, and could not lead.
    const { at } = follower.position.checkpoint;
    const { checkpoint } = await readLogEnd(reader, decoder, await reader.watermarks());
    // rule: log-reaches-own-position
    if (checkpoint === null || compareEpochLsn(checkpoint.at, at) < 0) {
      const end = checkpoint === null ? null : formatEpochLsn(checkpoint.at);
      const facts = { node: name, at: formatEpochLsn(at), end };
      const read = `node ${name} has read up to ${facts.at}`;
      const ends = end === null ? 'holds no point' : `ends at ${end}`;
      throw topicRecreated(`${read}; the topic ${ends}`, facts);
    }
  }

  /**
   * The parts of the schema that the node will lead without. Where the backfill of tables is not
   * complete it never will be: what was left for later is then built with the rows that there are.
   */
  async #finishSchema(): Promise<readonly string[]> {
    const { name, client, cluster } = this.#node;
    const { follower, finishSchema } = this.#following;
    const isWhole = follower.position.unfinished.length === 0;
    const open = isWhole ? await openBuild(client) : await finishSchema();
    requireSchemaBuilt(name, open);
    const lacks = lackTexts(open, await notValidForeignKeys(client));
    if (lacks.length > 0) {
      cluster.around.log.warn(
        { node: name, lacks },
        'this node will lead without parts of the schema',
      );
    }
    return lacks;
  }

  /** Its own; one of this epoch is left by a promotion that a crash interrupted. */
  async slotFor(epoch: number): Promise<{ readonly slot: string; readonly exists: boolean }> {
    const { client, cluster } = this.#node;
    const newest = newestSlot(await listSlots(client, slotPattern(cluster.name)), epoch);
    const slot = slotName(cluster.name, epoch);
    return { slot, exists: newest === slot };
  }

  async checkLog(): Promise<void> {
    // What this node applied was of this stream; drain compares its position with the log's end.
  }

  async drain(ends: readonly Watermarks[]): Promise<LogEnd> {
    const { reader, decoder, name } = this.#node;
    const { follower } = this.#following;
    await this.#applyAll(ends);
    if (!follower.exact) throw notBuilt(name);
    const end = await readLogEnd(reader, decoder, ends);
    const { at } = follower.position;
    const endAt = end.checkpoint?.at ?? null;
    if (endAt === null || compareEpochLsn(endAt, at) !== 0) throw notAtLogEnd(name, at, endAt);
    return end;
  }

  /** Once: a drain after a second fence finds nothing that this node could still apply. */
  async #applyAll(ends: readonly Watermarks[]): Promise<void> {
    if (this.#isDrained) return;
    const { follower, ended } = this.#following;
    await follower.drained(ends.map(({ lastStableOffset }) => lastStableOffset));
    follower.stop();
    await ended;
    this.#isDrained = true;
  }

  async startLsn(): Promise<Lsn> {
    const { client, cluster, name } = this.#node;
    this.#onStep('sequences');
    const { at } = this.#following.follower.position;
    const before = this.#sequencesAt;
    // Mostly the leader is dead, and nothing has come since.
    if (before === null || compareEpochLsn(before, at) !== 0) {
      await this.#sequences.advance(afterClaimMs);
    }
    const { lacks } = this.#sequences;
    if (lacks.length > 0) {
      cluster.around.log.warn({ node: name, lacks }, 'sequences may give values that are in use');
    }
    // A commit of our own, flushed: everything applied so far precedes it in this server's WAL.
    await inTransaction(client, () => client.query('UPDATE understudy.node SET epoch = epoch'));
    return flushedLsn(client);
  }

  /**
   * This node lacks rows of a table that is backfilling, or has older ones of a table under
   * resnapshot. Its rows are the stream's from now on, and followers get each of them again. The
   * epoch begin names these tables, so a crash here forgets none; the requests are in the WAL
   * behind the start of the epoch.
   */
  async backfilling(end: LogEnd): Promise<readonly UnfinishedTable[]> {
    if (end.unfinished.length === 0) return [];
    const { client } = this.#node;
    const keyed = await resnapshotRelations(client, false);
    const unfinished = new Set(end.unfinished.map(({ relation }) => relation));
    // rule: promotion-resumes-backfill
    const wanted = keyed.filter((relation) => unfinished.has(relation));
    return requestBackfill(client, wanted);
  }
}
