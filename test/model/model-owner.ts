/**
 * How a leader of the publishing model comes to own its epoch: by the steps of production, from
 * EpochOwner down to the fence and the epoch begin, with a control log in memory. The world answers
 * the calls of the producer one by one, and may let one of them fail.
 */
import type { Lsn } from '../../src/change/lsn.ts';
import type { ControlRecord } from '../../src/control/control-records.ts';
import {
  type ControlState,
  emptyControlState,
  foldControl,
} from '../../src/control/control-state.ts';
import {
  EpochOwner,
  type OwnedEpoch,
  writeEpochBegin,
} from '../../src/fleet/promotion/own-epoch.ts';
import { commitReadably, readLogEnd } from '../../src/topic/log-end.ts';
import type { RecordDecoder } from '../../src/topic/records/decoder.ts';
import type { RecordEncoder } from '../../src/topic/records/encoder.ts';
import type { Clock } from '../../src/waiting.ts';
import { beginOf } from '../support/builders.ts';
import { ModelProducer, type ModelTopic } from './model-topic.ts';

/** Every append lands at once, and every reader sees it. */
export class ModelControlLog {
  state: ControlState = emptyControlState;

  async append(record: ControlRecord): Promise<{ readonly offset: bigint }> {
    this.state = foldControl(this.state, [record]);
    return { offset: 0n };
  }

  async verify(): Promise<ControlState> {
    return this.state;
  }

  /** The only node that appends awaits the verification after it. */
  onChange(): () => void {
    return () => undefined;
  }
}

interface OwnerParts {
  readonly control: ModelControlLog;
  readonly topic: ModelTopic;
  readonly encoder: RecordEncoder;
  readonly decoder: RecordDecoder;
  /** The LSN at which the first epoch begins. */
  readonly start: Lsn;
  /** Whether the end of the log is read behind a fence. */
  readonly fences: boolean;
  /** Ends a call of the producer. */
  readonly answer: (producer: ModelProducer) => void;
}

/** Rejects when a call of the producer failed. */
export async function ownModelEpoch(parts: OwnerParts): Promise<OwnedEpoch> {
  const { control, topic, encoder, decoder, start } = parts;
  const { reader } = topic;
  const clock = modelClock();
  const mayClaim = control.state.current === null ? 1 : null;
  const producers: ModelProducer[] = [];
  const owner = new EpochOwner({
    ...{ control, node: 'a', onStep: () => undefined },
    around: { nowMs: clock.nowMs, randomId: () => `${clock.nowMs()}` },
    createProducer: () => {
      const producer = new ModelProducer(topic);
      producers.push(producer);
      return producer;
    },
    drain: async (epoch, producer) => {
      if (!parts.fences) return readLogEnd(reader, decoder, await reader.watermarks());
      const fence = encoder.encodeFence(epoch, 0n);
      const { ends } = await commitReadably(producer, fence, reader, clock);
      return readLogEnd(reader, decoder, ends);
    },
    begin: async (epoch, end, producer) => {
      const base = end.checkpoint?.at ?? null;
      const begin = beginOf({ epoch, base, startLsn: base?.lsn ?? start });
      const checkpoint = await writeEpochBegin(producer, reader, encoder, begin, clock);
      return { checkpoint, unfinished: end.unfinished };
    },
  });
  const owning = owner.own(mayClaim);
  let isOver = false;
  const over = (): void => {
    isOver = true;
  };
  owning.then(over, over);
  for (; !isOver; await turn()) {
    const busy = producers.find(({ isBusy }) => isBusy);
    if (busy !== undefined) parts.answer(busy);
  }
  const owned = await owning;
  if (owned === null) throw new Error('the only node does not own the epoch');
  return owned;
}

/** Each reading is a second later, so that a wait for what never comes ends. */
function modelClock(): Clock {
  let nowMs = 0;
  const next = (): number => {
    nowMs += 1_000;
    return nowMs;
  };
  return { nowMs: next, sleep: turn, random: () => 0 };
}

/** Whatever can happen without the world's doing has happened then. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
