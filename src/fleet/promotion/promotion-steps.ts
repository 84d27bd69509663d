/**
 * The steps from a node that is to lead to an owned epoch with its slot, ready to stream; null when
 * another node leads. There is one path for a start, a restart after an error, a torn batch, a
 * crash during a promotion, and a promotion; what differs between them is a Candidate.
 *
 * A new slot is created before the claim: its creation waits for every open transaction of the
 * server, and a claim that waits keeps every node from leading.
 */
import type { Client } from 'pg';
import { inTransaction } from '../../catalog/postgres-session.ts';
import type { Checkpoint, EpochBegin, UnfinishedTable } from '../../change/change.ts';
import { type Lsn, parseLsn } from '../../change/lsn.ts';
import type { EpochLsn } from '../../change/position.ts';
import { isMine } from '../../control/claim.ts';
import { hit } from '../../failpoints.ts';
import { abandonResnapshots } from '../../follower/apply/resnapshots.ts';
import { saveEpoch, writePosition } from '../../follower/state/follower-state.ts';
import { createSlot, dropSlot } from '../../leader/stream/slot.ts';
import type { Releasers } from '../../lifecycle.ts';
import type { TransactionalProducer, Watermarks } from '../../topic/log.ts';
import { commitReadably, readLogEnd } from '../../topic/log-end.ts';
import type { LogEnd } from '../../topic/partition-tails.ts';
import { formatVersion } from '../../topic/records/layout.ts';
import type { NodeAccess } from '../node/node-access.ts';
import { EpochOwner, type OwnedEpoch, writeEpochBegin } from './own-epoch.ts';
import type { SequenceChange } from './sequences.ts';

/** A leader that restarts, one that needs another slot, or a follower that is promoted. */
export interface Candidate {
  /** Whether its epoch is to end, whatever the log holds. */
  readonly endsItsEpoch: boolean;
  readonly sequences: readonly SequenceChange[];
  /** Parts of the schema that it will lead without, each with the reason. */
  readonly lacks: readonly string[];
  /** Does what may take long or be refused, before the claim: another node may still lead. */
  prepare(isOwner: boolean): Promise<void>;
  /** The slot to stream from in this epoch. */
  slotFor(epoch: number): Promise<{ readonly slot: string; readonly exists: boolean }>;
  /** Refuses a log that is not the one of this node, before anything is written to it. */
  checkLog(end: LogEnd, watermarks: readonly Watermarks[]): Promise<void>;
  /** Reads, and applies where it follows, all that was ever committed. */
  drain(ends: readonly Watermarks[]): Promise<LogEnd>;
  /** The LSN in this node's WAL at which a new epoch begins. */
  startLsn(end: LogEnd): Promise<Lsn>;
  /** The tables that a new epoch begins with as backfilling, once their backfill is requested. */
  backfilling(end: LogEnd): Promise<readonly UnfinishedTable[]>;
}

export interface ReadyEpoch extends OwnedEpoch {
  readonly owner: EpochOwner;
  readonly slot: string;
  /** The checkpoint that a new epoch continues; null when the epoch had begun before. */
  readonly base: EpochLsn | null;
  readonly sequences: readonly SequenceChange[];
  readonly lacks: readonly string[];
}

/** Creating a slot waits for the open transactions of the whole server. */
const newSlotTimeoutMs = 30_000;

export class PromotionSteps {
  readonly #node: NodeAccess;
  readonly #releasers: Releasers;
  readonly #candidate: Candidate;
  readonly #onStep: (step: string) => void;
  #slot = '';
  #base: EpochLsn | null = null;

  constructor(
    node: NodeAccess,
    releasers: Releasers,
    candidate: Candidate,
    onStep: (step: string) => void,
  ) {
    this.#node = node;
    this.#releasers = releasers;
    this.#candidate = candidate;
    this.#onStep = onStep;
  }

  /** `mayClaim` is the one epoch that may be claimed; null is none. */
  async run(mayClaim: number | null): Promise<ReadyEpoch | null> {
    const { control, name, client } = this.#node;
    const { epoch = 0 } = control.state.current ?? {};
    const { endsItsEpoch } = this.#candidate;
    const isOwner = isMine(control.state, name, epoch) && !endsItsEpoch;
    const epochToBe = isOwner ? epoch : epoch + 1;
    // The claim would be refused after its slot has been waited for.
    if (!isOwner && epochToBe !== mayClaim) return null;
    await this.#candidate.prepare(isOwner);
    this.#onStep('slot');
    const isCreated = await this.#ensureSlot(epochToBe);
    await hit('promote.after-slot');
    const owner = this.#epochOwner(endsItsEpoch ? epoch : null);
    this.#releasers.push('the epoch', () => owner.close());
    const owned = await owner.own(mayClaim);
    if (owned === null) {
      if (isCreated) await dropSlot(client, this.#slot);
      return null;
    }
    await this.#becomeLeader(owned.epoch);
    this.#onStep('stream');
    const { sequences, lacks } = this.#candidate;
    return { ...owned, owner, slot: this.#slot, base: this.#base, sequences, lacks };
  }

  /** Whether it was created. */
  async #ensureSlot(epoch: number): Promise<boolean> {
    const { client, cluster, name } = this.#node;
    const { slot, exists } = await this.#candidate.slotFor(epoch);
    this.#slot = slot;
    if (exists) return false;
    const session = await cluster.openSession(this.#releasers, name, 'slot');
    await createSlot(session, client, slot, newSlotTimeoutMs);
    return true;
  }

  #epochOwner(ending: number | null): EpochOwner {
    const { control, name, cluster, partitions } = this.#node;
    return new EpochOwner({
      control,
      node: name,
      around: cluster.around,
      createProducer: () => cluster.createProducer(partitions),
      drain: (epoch, producer) => this.#drain(epoch, producer),
      begin: (epoch, end, producer) => this.#begin(epoch, end, producer),
      onStep: this.#onStep,
      ...(ending === null ? {} : { ending }),
    });
  }

  async #drain(epoch: number, producer: TransactionalProducer): Promise<LogEnd> {
    const { reader, decoder, encoder, cluster } = this.#node;
    // Nothing is written to a log of another stream, nor under a registry that gives other ids.
    const watermarks = await reader.watermarks();
    const before = await readLogEnd(reader, decoder, watermarks);
    await this.#candidate.checkLog(before, watermarks);
    const fence = encoder.encodeFence(epoch, BigInt(cluster.around.nowMs()) * 1000n);
    const { ends } = await commitReadably(producer, fence, reader, cluster.around);
    await hit('own.after-fence');
    return this.#candidate.drain(ends);
  }

  async #begin(epoch: number, end: LogEnd, producer: TransactionalProducer) {
    const { cluster, encoder, reader, identity, server, name } = this.#node;
    const startLsn = await this.#candidate.startLsn(end);
    const unfinished = await this.#candidate.backfilling(end);
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
      unfinished,
    };
    const checkpoint = await writeEpochBegin(producer, reader, encoder, begin, cluster.around);
    await this.#saveBegin(begin, checkpoint);
    this.#base = begin.base;
    return { checkpoint, unfinished };
  }

  /** Writes what a follower writes at an epoch begin: this node does not read its own. */
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
    await inTransaction(client, async () => {
      await abandonResnapshots(client);
      await client.query('SELECT understudy.begin_to_lead()');
      await client.query(`UPDATE understudy.node SET role = 'leader', epoch = $1`, [epoch]);
    });
  }
}

/** The end of this server's WAL, of what is on its disk. */
export async function flushedLsn(client: Client): Promise<Lsn> {
  const { rows } = await client.query<{ lsn: string }>(
    'SELECT pg_catalog.pg_current_wal_flush_lsn() AS lsn',
  );
  return parseLsn(rows[0]?.lsn ?? '');
}
