/**
 * Owns an epoch, and notices when it is lost. The state machine of control/owning.ts decides; this
 * file does what it says and feeds it with what happened: the reply or the failure of each action,
 * and each new state of the control log, also while the node leads. It gives an owned epoch, with
 * its verified producer and the checkpoint where the log ends, or null when another node leads. A
 * fenced producer is no end as long as the epoch is still this node's: a stale owner fences it once
 * before it sees that it has lost. Any other error ends the attempt; the next one begins with
 * reading the control log.
 */
import type { Checkpoint, EpochBegin } from '../../change/change.ts';
import type { ControlLog } from '../../control/control-log.ts';
import {
  type Drained,
  notOwning,
  type OwningAction,
  type OwningEvent,
  stepOwning,
} from '../../control/owning.ts';
import { bug } from '../../errors/bug.ts';
import { topicPastEpoch } from '../../errors/ownership.ts';
import { hasCode } from '../../errors/understudy-error.ts';
import { hit } from '../../failpoints.ts';
import { isRetriable } from '../../lifecycle.ts';
import type { CommittedReader, OutgoingRecord, TransactionalProducer } from '../../topic/log.ts';
import { commitReadably } from '../../topic/log-end.ts';
import type { LogEnd } from '../../topic/partition-tails.ts';
import type { RecordEncoder } from '../../topic/records/encoder.ts';
import { type Clock, WakeUp } from '../../waiting.ts';
import type { Surroundings } from '../cluster.ts';

interface OwnEpochParts {
  readonly control: Pick<ControlLog, 'state' | 'append' | 'verify' | 'onChange'>;
  readonly node: string;
  readonly around: Pick<Surroundings, 'nowMs' | 'randomId'>;
  readonly createProducer: () => TransactionalProducer;
  /** Reads all that was ever committed, once no other node can write; a follower applies it. */
  readonly drain: (epoch: number, producer: TransactionalProducer) => Promise<LogEnd>;
  /** Writes the epoch begin to all partitions in one transaction. */
  readonly begin: (
    epoch: number,
    end: LogEnd,
    producer: TransactionalProducer,
  ) => Promise<Pick<LogEnd, 'unfinished'> & { readonly checkpoint: Checkpoint }>;
  readonly onStep: (step: 'claim' | 'init' | 'verify' | 'drain') => void;
  /** An epoch of this node that is to end, whatever its log holds. */
  readonly ending?: number;
}

export interface OwnedEpoch {
  readonly epoch: number;
  readonly producer: TransactionalProducer;
  readonly end: LogEnd;
  readonly checkpoint: Checkpoint;
}

/** Actions that the machine waits for: each has a reply. */
type Awaited = Exclude<OwningAction, { kind: 'lead' | 'step-down' | 'discard-producer' }>;

/** Each further try is another stale owner that has not noticed yet that it has lost. */
const triesMax = 5;

export class EpochOwner {
  readonly #parts: OwnEpochParts;
  readonly #steppedDown = new AbortController();
  readonly #unwatch: () => void;
  readonly #claimed = new WakeUp();
  /** Of an append whose claim may be in the log all the same: the verification decides. */
  #claimFailure: { readonly error: unknown } | null = null;
  #owning;
  /** Not done yet, of the machine's last step. */
  #actions: OwningAction[] = [];
  #tries = 1;
  #producer: TransactionalProducer | null = null;
  #end: LogEnd | null = null;
  #checkpoint: Checkpoint | null = null;

  constructor(parts: OwnEpochParts) {
    this.#parts = parts;
    this.#owning = notOwning(parts.node);
    this.#unwatch = parts.control.onChange(() => this.#watch());
  }

  /** Aborted when the control log has another owner: publishing has to stop, the guard is armed. */
  get steppedDown(): AbortSignal {
    return this.#steppedDown.signal;
  }

  /** `mayClaim` is the one epoch that may be claimed; null is none. Called once. */
  async own(mayClaim: number | null): Promise<OwnedEpoch | null> {
    try {
      this.#step({ kind: 'start', mayClaim });
      const lead = await this.#runTo('lead');
      return lead === null ? null : this.#owned(lead.epoch);
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  /**
   * Whether the epoch is still this node's after its producer was fenced while it led. The producer
   * is discarded: the epoch can be continued by a new attempt.
   */
  async isStillOwner(): Promise<boolean> {
    this.#step({ kind: 'failed', ticket: this.#owning.ticket });
    return (await this.#runTo('init')) !== null;
  }

  async close(): Promise<void> {
    this.#unwatch();
    await this.#discardProducer();
  }

  /** Up to an action of this kind, which it gives; null once the machine has stepped down. */
  async #runTo<Kind extends 'lead' | 'init'>(
    kind: Kind,
  ): Promise<Extract<OwningAction, { kind: Kind }> | null> {
    for (;;) {
      const action = this.#actions.shift();
      if (action === undefined) throw bug('the way to an epoch ended without a result');
      if (action.kind === kind) return action as Extract<OwningAction, { kind: Kind }>;
      switch (action.kind) {
        case 'discard-producer':
          await this.#discardProducer();
          break;
        case 'step-down':
          this.#steppedDown.abort();
          if (this.#claimFailure !== null) throw this.#claimFailure.error;
          return null;
        case 'lead':
          throw bug('an epoch is led that was to be initialised first');
        default:
          await this.#do(action);
      }
    }
  }

  /** Every step has a new ticket: what is left of an earlier step must not be done any more. */
  #step(event: OwningEvent): boolean {
    const { owning, actions } = stepOwning(this.#owning, event);
    const isNew = owning !== this.#owning;
    this.#owning = owning;
    if (isNew) this.#actions = [...actions];
    return isNew;
  }

  /**
   * Does at once what no caller may be there to do. Without its producer the action under way fails
   * soon, and what it replies is dropped. A wait for a claim ends when the epoch is this node's.
   */
  #watch(): void {
    if (!this.#step({ kind: 'control', control: this.#parts.control.state })) return;
    if (this.#owning.phase.kind !== 'stepped-down') {
      this.#claimed.wake();
      return;
    }
    this.#steppedDown.abort();
    // A producer that cannot be closed is of no use either: the next owner fences it.
    this.#discardProducer().catch(() => undefined);
  }

  async #do(action: Awaited): Promise<void> {
    const { ticket } = this.#owning;
    try {
      const reply = await this.#unlessClaimed(action);
      if (reply !== null) this.#step(reply);
    } catch (error) {
      // The machine has stepped down meanwhile: the failure is that of a discarded producer.
      if (ticket !== this.#owning.ticket) return;
      if (!hasCode(error, 'LOST_LEADERSHIP') || this.#tries === triesMax) throw error;
      this.#tries += 1;
      if (!this.#step({ kind: 'failed', ticket })) throw error;
    }
  }

  /**
   * A claim whose answer is lost may be read while its append, or the verification after it, still
   * waits for a connection. Neither changes anything by its end.
   */
  #unlessClaimed(action: Awaited): Promise<OwningEvent | null> {
    const performed = this.#perform(action);
    if (action.kind !== 'claim' && action.kind !== 'verify') return performed;
    // Where the claim is read first, its failure changes nothing any more.
    performed.catch(() => undefined);
    return Promise.race([performed, this.#claimed.sleep().then(() => null)]);
  }

  async #perform(action: Awaited): Promise<OwningEvent | null> {
    const { control, node, around, onStep } = this.#parts;
    switch (action.kind) {
      case 'claim': {
        onStep('claim');
        const time = new Date(around.nowMs()).toISOString();
        const claim = {
          kind: 'claim',
          ...action.claim,
          id: around.randomId(),
          node,
          time,
        } as const;
        await control.append(claim).catch((error: unknown) => {
          if (!isRetriable(error)) throw error;
          this.#claimFailure = { error };
        });
        await hit('own.after-claim');
        return null;
      }
      case 'verify':
        onStep('verify');
        await control.verify();
        return { kind: 'verified', ticket: action.ticket, control: control.state };
      case 'init':
        onStep('init');
        this.#producer = this.#parts.createProducer();
        await this.#producer.open();
        await hit('own.after-init');
        return { kind: 'inited', ticket: action.ticket };
      case 'drain':
        return this.#drain(action.epoch, action.ticket);
      case 'begin':
        return this.#begin(action.epoch, action.ticket);
    }
  }

  async #drain(epoch: number, ticket: number): Promise<OwningEvent> {
    const { control, onStep, drain, ending } = this.#parts;
    onStep('drain');
    this.#end = await drain(epoch, this.#inited());
    this.#checkpoint = this.#end.checkpoint;
    const found = epoch === ending ? 'over' : foundAtEnd(this.#end, epoch);
    return { kind: 'drained', ticket, found, control: control.state };
  }

  async #begin(epoch: number, ticket: number): Promise<OwningEvent> {
    const producer = this.#inited();
    const end = this.#end;
    if (end === null) throw bug('begin comes after drain');
    await hit('own.before-epoch-begin');
    const { checkpoint, unfinished } = await this.#parts.begin(epoch, end, producer);
    this.#checkpoint = checkpoint;
    const voids = end.pastCheckpoint.length > 0 ? end.checkpoint : null;
    const unhealed = end.unhealed ?? voids;
    this.#end = { checkpoint, point: null, begin: null, pastCheckpoint: [], unhealed, unfinished };
    return { kind: 'begun', ticket };
  }

  #inited(): TransactionalProducer {
    if (this.#producer === null) throw bug('drain and begin come after init');
    return this.#producer;
  }

  #owned(epoch: number): OwnedEpoch {
    const { end, checkpoint } = { end: this.#end, checkpoint: this.#checkpoint };
    if (end === null || checkpoint === null) throw bug('lead comes after drain and begin');
    return { epoch, producer: this.#inited(), end, checkpoint };
  }

  async #discardProducer(): Promise<void> {
    const producer = this.#producer;
    this.#producer = null;
    await producer?.close();
  }
}

/**
 * Whether the epoch continues, begins, or is over, by the records that the log holds past the
 * checkpoint.
 */
export function foundAtEnd(end: LogEnd, epoch: number): Drained {
  const found = end.checkpoint?.at.epoch ?? 0;
  if (found > epoch) throw topicPastEpoch(found, epoch);
  // rule: torn-end-ends-epoch
  if (found === epoch) return end.pastCheckpoint.length > 0 ? 'over' : 'begun';
  const halfBegun = end.pastCheckpoint.some((record) => record.position.epoch === epoch);
  return halfBegun ? 'over' : 'not-begun';
}

/**
 * Writes the beginning of an epoch: one record in every partition, in one Kafka transaction, with
 * the schema that it begins with where there is one. Gives the checkpoint that the epoch's first
 * point continues. The begin counts only when all partitions hold it, and then voids the records
 * past its base. No node leads an epoch whose begin it cannot read back: a crash could still end
 * that transaction as aborted, and what clients wrote meanwhile would precede the begin that is
 * written in its place.
 */
export async function writeEpochBegin(
  producer: TransactionalProducer,
  reader: CommittedReader,
  encoder: RecordEncoder,
  begin: EpochBegin,
  clock: Clock,
  schema: readonly OutgoingRecord[] = [],
): Promise<Checkpoint> {
  // The begin comes last: the offsets behind it are the checkpoint.
  const records = [...schema, ...encoder.encodeEpochBegin(begin, BigInt(clock.nowMs()) * 1000n)];
  const { offsets } = await commitReadably(producer, records, reader, clock);
  return {
    at: { epoch: begin.epoch, lsn: begin.startLsn },
    nextOffsets: offsets.map((offset) => offset + 1n),
  };
}
