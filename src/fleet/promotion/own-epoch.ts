/**
 * Carries out how a node comes to own an epoch. Flows in: the actions of the owning state machine
 * (control/owning.ts); flows out: an epoch that is owned, with its verified producer and the
 * checkpoint where the log stands, or null when another node leads. The machine decides, this file
 * does: one action after the other, each reply handed back with its ticket. An error ends the
 * attempt; the next one begins at the control log again.
 */
import type { Checkpoint, EpochBegin } from '../../change/change.ts';
import { isMine } from '../../control/claim.ts';
import type { ControlLog } from '../../control/control-log.ts';
import {
  type Drained,
  notOwning,
  type OwningAction,
  type OwningEvent,
  stepOwning,
} from '../../control/owning.ts';
import { hasCode, UnderstudyError } from '../../errors/understudy-error.ts';
import { hit } from '../../failpoints.ts';
import type { CommittedReader, OutgoingRecord, TransactionalProducer } from '../../topic/log.ts';
import { commitReadably } from '../../topic/log-end.ts';
import type { LogEnd } from '../../topic/partition-tails.ts';
import type { RecordEncoder } from '../../topic/records/encoder.ts';
import type { Clock } from '../../waiting.ts';
import type { Surroundings } from '../cluster.ts';

interface OwnEpochParts {
  readonly control: Pick<ControlLog, 'state' | 'append' | 'verify'>;
  readonly node: string;
  readonly around: Pick<Surroundings, 'nowMs' | 'randomId'>;
  readonly createProducer: () => TransactionalProducer;
  /** Reads all that was ever committed, once nobody else can write; a follower applies it. */
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

/** Each further try is another stale owner on its way out. */
const triesMax = 5;

/**
 * `mayClaim` is the one epoch that may be claimed; null is none. Whoever asked meant to end the
 * reign that was known then: when another node has begun the next one since, that stands.
 */
export async function ownEpoch(
  parts: OwnEpochParts,
  mayClaim: number | null,
): Promise<OwnedEpoch | null> {
  for (let tries = 1; ; tries += 1) {
    const attempt = new OwningAttempt(parts);
    try {
      return await attempt.run(mayClaim);
    } catch (error) {
      await attempt.discardProducer();
      if (tries === triesMax || !(await isStillMine(parts, error))) throw error;
    }
  }
}

/**
 * A stale owner fences this one once before it sees that it has lost: then this one begins again.
 */
async function isStillMine({ control, node }: OwnEpochParts, error: unknown): Promise<boolean> {
  if (!hasCode(error, 'LOST_LEADERSHIP')) return false;
  const state = await control.verify();
  return isMine(state, node, state.current?.epoch ?? 0);
}

/**
 * What the log holds past the checkpoint decides whether this epoch goes on, begins, or is voided.
 */
export function foundAtEnd(end: LogEnd, epoch: number): Drained {
  if (end.checkpoint !== null && end.checkpoint.at.epoch > epoch) {
    throw new UnderstudyError(
      'LOST_LEADERSHIP',
      `the topic holds epoch ${end.checkpoint.at.epoch}, the control log gives this node ` +
        `epoch ${epoch}`,
      'One of the two topics was replaced: destroy the cluster and init it again.',
    );
  }
  const mine = end.checkpoint?.at.epoch === epoch;
  if (mine) return end.pastCheckpoint.length > 0 ? 'over' : 'begun';
  const halfBegun = end.pastCheckpoint.some((record) => record.position.epoch === epoch);
  return halfBegun ? 'over' : 'not-begun';
}

class OwningAttempt {
  readonly #parts: OwnEpochParts;
  #owning;
  #producer: TransactionalProducer | null = null;
  #end: LogEnd | null = null;
  #checkpoint: Checkpoint | null = null;

  constructor(parts: OwnEpochParts) {
    this.#parts = parts;
    this.#owning = notOwning(parts.node);
  }

  async run(mayClaim: number | null): Promise<OwnedEpoch | null> {
    const actions = this.#step({ kind: 'start', mayClaim: mayClaim !== null });
    for (;;) {
      const action = actions.shift();
      if (action === undefined) return null;
      if (action.kind === 'step-down') return null;
      // The claim that voids a torn batch of mine comes after the drain, and is not the first.
      const isFirst = action.kind === 'claim' && this.#end === null;
      if (isFirst && action.claim.epoch !== mayClaim) return null;
      if (action.kind === 'lead') return this.#owned(action.epoch);
      const reply = await this.#perform(action);
      if (reply !== null) actions.push(...this.#step(reply));
    }
  }

  async discardProducer(): Promise<void> {
    const producer = this.#producer;
    this.#producer = null;
    await producer?.close();
  }

  #step(event: OwningEvent): OwningAction[] {
    const { owning, actions } = stepOwning(this.#owning, event);
    this.#owning = owning;
    return [...actions];
  }

  async #perform(
    action: Exclude<OwningAction, { kind: 'lead' | 'step-down' }>,
  ): Promise<OwningEvent | null> {
    const { control, onStep } = this.#parts;
    switch (action.kind) {
      case 'claim':
        onStep('claim');
        await control.append({
          kind: 'claim',
          ...action.claim,
          id: this.#parts.around.randomId(),
          node: this.#parts.node,
          time: new Date(this.#parts.around.nowMs()).toISOString(),
        });
        await hit('own.after-claim');
        return null;
      case 'verify': {
        onStep('verify');
        await control.verify();
        return { kind: 'verified', ticket: action.ticket, control: control.state };
      }
      case 'init': {
        onStep('init');
        this.#producer = this.#parts.createProducer();
        await this.#producer.open();
        await hit('own.after-init');
        return { kind: 'inited', ticket: action.ticket };
      }
      case 'drain': {
        onStep('drain');
        this.#end = await this.#parts.drain(action.epoch, this.#inited());
        this.#checkpoint = this.#end.checkpoint;
        const isEnding = action.epoch === this.#parts.ending;
        const found = isEnding ? 'over' : foundAtEnd(this.#end, action.epoch);
        return { kind: 'drained', ticket: action.ticket, found, control: control.state };
      }
      case 'begin':
        return this.#begin(action.epoch, action.ticket);
      case 'discard-producer':
        await this.discardProducer();
        return null;
    }
  }

  async #begin(epoch: number, ticket: number): Promise<OwningEvent> {
    const { begin } = this.#parts;
    const producer = this.#inited();
    const end = this.#end;
    if (end === null) throw new Error('begin comes after drain');
    await hit('own.before-epoch-begin');
    const { checkpoint, unfinished } = await begin(epoch, end, producer);
    this.#checkpoint = checkpoint;
    const voids = end.pastCheckpoint.length > 0 ? end.checkpoint : null;
    const unhealed = end.unhealed ?? voids;
    this.#end = { checkpoint, point: null, begin: null, pastCheckpoint: [], unhealed, unfinished };
    return { kind: 'begun', ticket };
  }

  #inited(): TransactionalProducer {
    if (this.#producer === null) throw new Error('drain and begin come after init');
    return this.#producer;
  }

  #owned(epoch: number): OwnedEpoch {
    const { end, checkpoint } = { end: this.#end, checkpoint: this.#checkpoint };
    if (end === null || checkpoint === null)
      throw new Error('an epoch is owned after drain and begin');
    return { epoch, producer: this.#inited(), end, checkpoint };
  }
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
