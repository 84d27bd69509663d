/**
 * One path to the lead: for a start, a restart after an error, a torn batch, a crash half-way
 * through, and a promotion. Flows in: a node and, while it still follows, its follower at work;
 * flows out: an owned epoch with its slot, ready to stream, or null when another node leads.
 *
 * A node that follows makes its slot before it claims: making one waits for every open transaction
 * of the server, and a claim that waits keeps everybody from leading. After the fence it applies
 * all that the log holds, and begins at an LSN of its own.
 */
import type { Client } from 'pg';
import { inTransaction } from '../../catalog/postgres-session.ts';
import { ledElsewhere } from '../../catalog/understudy-schema.ts';
import type { Checkpoint, EpochBegin, UnfinishedTable } from '../../change/change.ts';
import { unreadTable } from '../../change/change.ts';
import { type Lsn, parseLsn } from '../../change/lsn.ts';
import { compareEpochLsn, type EpochLsn, formatEpochLsn } from '../../change/position.ts';
import { isMine } from '../../control/claim.ts';
import { notBuilt } from '../../errors/ownership.ts';
import { UnderstudyError } from '../../errors/understudy-error.ts';
import { hit } from '../../failpoints.ts';
import { Resnapshots } from '../../follower/apply/resnapshots.ts';
import { notValidForeignKeys, openBuild } from '../../follower/schema/schema-build.ts';
import { readPosition, saveEpoch, writePosition } from '../../follower/state/follower-state.ts';
import { createSlot, dropSlot, listSlots, newestSlot } from '../../leader/stream/slot.ts';
import type { Releasers } from '../../lifecycle.ts';
import type { TransactionalProducer, Watermarks } from '../../topic/log.ts';
import { commitReadably, holdsBegin, readLogEnd } from '../../topic/log-end.ts';
import type { LogEnd } from '../../topic/partition-tails.ts';
import {
  formatVersion,
  publicationName,
  slotName,
  slotPrefix,
} from '../../topic/records/layout.ts';
import { withTimeout } from '../../waiting.ts';
import type { NodeAccess } from '../node/node-access.ts';
import type { FollowerAtWork } from '../provision/following.ts';
import { lackTexts, requireSchemaBuilt } from '../status/progress-text.ts';
import { type OwnedEpoch, ownEpoch, writeEpochBegin } from './own-epoch.ts';
import { repairPublication, requestResnapshot, resnapshotRelations } from './resnapshot-tables.ts';
import { advanceSequences, type SequenceChange } from './sequences.ts';

export interface Lead extends OwnedEpoch {
  readonly slot: string;
  /** What a new epoch continues; null when this node goes on in an epoch that had begun. */
  readonly base: EpochLsn | null;
  readonly sequences: readonly SequenceChange[];
  /** Parts of the schema that it leads without, each with the reason. */
  readonly lacks: readonly string[];
}

type OnStep = (step: string) => void;

/** Creating a slot waits for the open transactions of the whole server. */
const slotTimeoutMs = 30_000;
/** A follower that is further behind than this is not the one to take the lead now. */
const catchUpTimeoutMs = 60_000;

export class LeadTaking {
  readonly #node: NodeAccess;
  readonly #releasers: Releasers;
  readonly #following: FollowerAtWork | null;
  readonly #onStep: OnStep;
  #slot = '';
  #appliedAll = false;
  #base: EpochLsn | null = null;
  #sequences: readonly SequenceChange[] = [];
  readonly #anew: boolean;
  #lacks: readonly string[] = [];

  /** `anew`: the leader's slot is of no use any more; it begins an epoch with all rows to read. */
  constructor(
    node: NodeAccess,
    releasers: Releasers,
    following: FollowerAtWork | null,
    onStep: OnStep,
    anew = false,
  ) {
    this.#node = node;
    this.#releasers = releasers;
    this.#following = following;
    this.#onStep = onStep;
    this.#anew = anew;
  }

  /** `mayClaim` is the one epoch that may be claimed; null is none. */
  async take(mayClaim: number | null): Promise<Lead | null> {
    const { control, name, cluster, partitions } = this.#node;
    const { epoch = 0 } = control.state.current ?? {};
    const mine = isMine(control.state, name, epoch) && !this.#anew;
    const epochToBe = mine ? epoch : epoch + 1;
    if (!mine && epochToBe !== mayClaim) return null;
    if (this.#anew) await this.#clearAway();
    else if (this.#following === null) await this.#checkServer();
    else if (!mine) await this.#catchUp(this.#following);
    this.#onStep('slot');
    const madeSlot = await this.#ensureSlot(epochToBe);
    await hit('promote.after-slot');
    const owned = await ownEpoch(
      {
        control,
        node: name,
        around: cluster.around,
        createProducer: () => cluster.createProducer(partitions),
        drain: (epochOwned, producer) => this.#drain(epochOwned, producer),
        begin: (owner, end, producer) => this.#begin(owner, end, producer),
        onStep: this.#onStep,
        ...(this.#anew ? { ending: epoch } : {}),
      },
      mayClaim,
    );
    if (owned === null) {
      if (madeSlot) await dropSlot(this.#node.client, this.#slot);
      return null;
    }
    await this.#becomeLeader(owned.epoch);
    this.#onStep('stream');
    const [base, sequences, lacks] = [this.#base, this.#sequences, this.#lacks];
    return { ...owned, slot: this.#slot, base, sequences, lacks };
  }

  /**
   * Applies what the log holds now. A node that cannot is told so before it claims, while the
   * leader still leads; and the drain after the fence has little left to do.
   */
  async #catchUp(following: FollowerAtWork): Promise<void> {
    const { follower } = following;
    const { reader, decoder } = this.#node;
    this.#onStep('catch up');
    const watermarks = await reader.watermarks();
    const drained = follower.drained(watermarks.map(({ lastStableOffset }) => lastStableOffset));
    await withTimeout(drained, catchUpTimeoutMs, () => {
      return new UnderstudyError(
        'NOT_PROMOTABLE',
        `this node did not reach the end of the log within ${catchUpTimeoutMs} ms`,
        'Wait until understudy status shows it streaming, or choose another node.',
      );
    });
    if (!follower.exact) throw notBuilt(this.#node.name);
    // Of a topic that was made again there is nothing to apply: it would take the lead from who has
    // it, and could not lead.
    const { at } = follower.position.checkpoint;
    const { checkpoint } = await readLogEnd(reader, decoder, await reader.watermarks());
    if (checkpoint === null || compareEpochLsn(checkpoint.at, at) < 0) {
      const end = checkpoint === null ? 'in nothing' : `at ${formatEpochLsn(checkpoint.at)}`;
      throw notOurLog(`this node has read up to ${formatEpochLsn(at)}; the topic ends ${end}`);
    }
    this.#onStep('schema');
    this.#lacks = await schemaToLeadWith(this.#node, following);
  }

  async #checkServer(): Promise<void> {
    const { client, server, name } = this.#node;
    const led = await ledElsewhere(client, name, server);
    if (led === null) return;
    throw new UnderstudyError(
      'TIMELINE_MISMATCH',
      `node ${name} led on system ${led.systemId}, timeline ${led.timeline}; its server is now ` +
        `system ${server.systemId}, timeline ${server.timeline}`,
      'Its LSNs no longer mean what the stream says: fail over to a follower.',
    );
  }

  /** A node that led the base's epoch goes on with its slot; a promoted one makes its own. */
  async #ensureSlot(epoch: number): Promise<boolean> {
    const { client, cluster, name } = this.#node;
    const ours = await listSlots(client, slotPrefix(cluster.name));
    const newest = newestSlot(ours, epoch);
    const own = slotName(cluster.name, epoch);
    if ((this.#following === null && !this.#anew) || newest === own) {
      this.#slot = newest ?? own;
      return false;
    }
    this.#slot = own;
    const maker = await cluster.openSession(this.#releasers, name, 'slot');
    await createSlot(maker, client, this.#slot, slotTimeoutMs);
    return true;
  }

  async #drain(epoch: number, producer: TransactionalProducer): Promise<LogEnd> {
    const { reader, decoder, encoder, cluster } = this.#node;
    // Nothing is written to a log of another stream, nor under a registry that gives other ids.
    const watermarks = await reader.watermarks();
    const before = await readLogEnd(reader, decoder, watermarks);
    if (this.#following === null) await this.#requireLog(before, watermarks);
    const fence = encoder.encodeFence(epoch, BigInt(cluster.around.nowMs()) * 1000n);
    const { ends } = await commitReadably(producer, fence, reader, cluster.around);
    await hit('own.after-fence');
    if (this.#following === null) return this.#ownLog(await readLogEnd(reader, decoder, ends));
    const { follower } = this.#following;
    await this.#applyAll(this.#following, ends);
    if (!follower.exact) throw notBuilt(this.#node.name);
    const end = await readLogEnd(reader, decoder, ends);
    const { at } = follower.position;
    if (end.checkpoint === null || compareEpochLsn(end.checkpoint.at, at) !== 0) {
      const checkpoint = end.checkpoint === null ? 'nothing' : formatEpochLsn(end.checkpoint.at);
      throw new UnderstudyError(
        'NOT_PROMOTABLE',
        `this node stands at ${formatEpochLsn(at)} and the log ends at ${checkpoint}`,
        'Choose another node: understudy status shows which can take the lead.',
      );
    }
    return end;
  }

  /**
   * Whoever led has seen its epoch begin: a log without one, or of another stream, is not its own.
   */
  #ownLog(end: LogEnd): LogEnd {
    const { streamId } = this.#node.identity;
    const found = end.checkpoint === null ? 'nothing' : (end.point ?? end.begin)?.streamId;
    if (end.checkpoint !== null && (found === undefined || found === streamId)) return end;
    throw notOurLog(
      `this node led the stream ${streamId}; the topic holds ` +
        (found === 'nothing' ? 'no point' : `the stream ${found}`),
    );
  }

  /** Who wrote on into a topic that was made again left an end there that is its own. */
  async #requireLog(end: LogEnd, watermarks: readonly Watermarks[]): Promise<void> {
    this.#ownLog(end);
    const { client, reader, decoder } = this.#node;
    const began = await readPosition(client);
    if (began === null || (await holdsBegin(reader, decoder, watermarks, began))) return;
    const { at, nextOffsets } = began.checkpoint;
    throw notOurLog(
      `epoch ${at.epoch}, which this node led, began right before the offsets ` +
        `${nextOffsets.join(', ')}; the topic holds no begin there`,
    );
  }

  /** Once: a later look at the log finds nothing that this node could still apply. */
  async #applyAll({ follower, ended }: FollowerAtWork, ends: readonly Watermarks[]): Promise<void> {
    if (this.#appliedAll) return;
    await follower.drained(ends.map(({ lastStableOffset }) => lastStableOffset));
    follower.stop();
    await ended;
    this.#appliedAll = true;
  }

  async #begin(epoch: number, end: LogEnd, producer: TransactionalProducer) {
    const { cluster, encoder, reader, identity, server, name } = this.#node;
    const startLsn = await this.#startLsn(end);
    const unread = await this.#askToRead(end);
    this.#onStep('epoch begin');
    const begin: EpochBegin = {
      streamId: identity.streamId,
      epoch,
      leader: name,
      systemId: server.systemId,
      timeline: server.timeline,
      base: end.checkpoint?.at ?? null,
      startLsn,
      slot: this.#slot,
      keySchemaId: encoder.keySchemaId,
      unfinished: unread,
    };
    const checkpoint = await writeEpochBegin(producer, reader, encoder, begin, cluster.around);
    await this.#saveBegin(begin, checkpoint);
    this.#base = begin.base;
    return { checkpoint, unfinished: begin.unfinished };
  }

  /**
   * Gives what the epoch begins with. A node that followed never had all rows of a table that is
   * unfinished, and may have others of one that was being read anew: its own are the stream's now,
   * and followers get each of them once more. What the log says of that outlives a crash here. What
   * is asked for stands in the WAL behind the start of the epoch.
   */
  async #askToRead(end: LogEnd): Promise<readonly UnfinishedTable[]> {
    const { client } = this.#node;
    if (this.#following === null && !this.#anew) return end.unfinished;
    if (end.unfinished.length === 0 && !this.#anew) return [];
    const keyed = await resnapshotRelations(client, this.#anew);
    const unfinished = new Set(end.unfinished.map(({ relation }) => relation));
    const wanted = this.#anew ? keyed : keyed.filter((relation) => unfinished.has(relation));
    await requestResnapshot(client, wanted);
    await hit('own.after-ask');
    return wanted.map(unreadTable);
  }

  /**
   * First the slots, of which none is of use, so that whoever is interrupted here is seen to be
   * without one. A slot that is older than its publication sends nothing.
   */
  async #clearAway(): Promise<void> {
    const { client, cluster } = this.#node;
    const slots = await listSlots(client, slotPrefix(cluster.name));
    for (const slot of slots) await dropSlot(client, slot);
    await hit('anew.after-drop');
    await repairPublication(client, publicationName(cluster.name));
    await hit('anew.after-publication');
  }

  /** The base's own leader goes on where the log stands; another begins at an LSN of its own. */
  async #startLsn(end: LogEnd): Promise<Lsn> {
    const { client, cluster, identity } = this.#node;
    if (this.#anew) return flushLsn(client);
    if (this.#following === null && identity.role === 'leader' && end.checkpoint !== null) {
      return end.checkpoint.at.lsn;
    }
    this.#onStep('sequences');
    this.#sequences = await inTransaction(client, async () => {
      const changes = await advanceSequences(client, cluster.settings.tables);
      // A commit of our own, flushed: everything applied so far lies before it in this server's
      // WAL.
      await client.query('UPDATE understudy.node SET epoch = epoch');
      return changes;
    });
    return flushLsn(client);
  }

  /** What a follower would have written at this epoch begin: this node does not read its own. */
  async #saveBegin(begin: EpochBegin, checkpoint: Checkpoint): Promise<void> {
    const { client, cluster, identity } = this.#node;
    const nowMs = cluster.around.nowMs();
    await inTransaction(client, async () => {
      await saveEpoch(client, begin);
      const position = {
        streamId: identity.streamId,
        at: checkpoint.at,
        commitTimeMicros: BigInt(nowMs) * 1000n,
        checkpoint,
        appendMs: checkpoint.nextOffsets.map(() => nowMs),
        unfinished: begin.unfinished.map(({ relation }) => relation),
      };
      await writePosition(client, position, formatVersion);
    });
  }

  async #becomeLeader(epoch: number): Promise<void> {
    const { client } = this.#node;
    const resnapshots = await Resnapshots.open(client);
    await inTransaction(client, async () => {
      await resnapshots.abandon();
      await client.query(`UPDATE understudy.node SET role = 'leader', epoch = $1`, [epoch]);
    });
  }
}

function notOurLog(cause: string): UnderstudyError {
  const hint = 'The topic was deleted or made again: destroy the cluster and init it again.';
  return new UnderstudyError('TOPIC_MISMATCH', cause, hint);
}

async function flushLsn(client: Client): Promise<Lsn> {
  const { rows } = await client.query<{ lsn: string }>(
    'SELECT pg_catalog.pg_current_wal_flush_lsn() AS lsn',
  );
  return parseLsn(rows[0]?.lsn ?? '');
}

/**
 * The parts of the schema that the node will lead without. Where the backfill of tables is not
 * complete it never will be, and what was left for later is built with the rows that there are.
 */
async function schemaToLeadWith(
  { name, client, cluster }: Pick<NodeAccess, 'name' | 'client' | 'cluster'>,
  { follower, finishSchema }: FollowerAtWork,
): Promise<readonly string[]> {
  const isWhole = follower.position.unfinished.length === 0;
  const open = isWhole ? await openBuild(client) : await finishSchema();
  requireSchemaBuilt(name, open);
  const lacks = lackTexts(open, await notValidForeignKeys(client));
  if (lacks.length > 0) {
    cluster.around.log.warn({ node: name, lacks }, 'it will lead without parts of the schema');
  }
  return lacks;
}
