/**
 * A control log in memory, for tests without servers: the fold of production over records that
 * every reader sees as soon as they are appended.
 */
import type { ControlLog } from '../../src/control/control-log.ts';
import type { ControlRecord, RecordOf } from '../../src/control/control-records.ts';
import {
  type ControlState,
  emptyControlState,
  foldControl,
} from '../../src/control/control-state.ts';

export const recordTime = '2026-03-01T10:00:00.000Z';

export function claimOf(epoch: number, node: string): ControlRecord {
  const predecessor = epoch === 1 ? null : `claim-${epoch - 1}`;
  return { kind: 'claim', id: `claim-${epoch}`, epoch, node, predecessor, time: recordTime };
}

type Kept = Pick<ControlLog, 'state' | 'append' | 'verify' | 'onChange' | 'answers'>;

export class MemoryControlLog implements Kept {
  state: ControlState = emptyControlState;
  /** How often it was verified. */
  verified = 0;
  readonly appended: ControlRecord[] = [];
  readonly listeners = new Set<(state: ControlState) => void>();

  constructor(...records: readonly ControlRecord[]) {
    this.state = foldControl(this.state, records);
  }

  async append(record: ControlRecord): Promise<{ readonly offset: bigint }> {
    this.appended.push(record);
    this.state = foldControl(this.state, [record]);
    for (const listener of this.listeners) listener(this.state);
    return { offset: BigInt(this.appended.length - 1) };
  }

  async verify(): Promise<ControlState> {
    this.verified += 1;
    return this.state;
  }

  onChange(listener: (state: ControlState) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  answers(requestId: string): readonly RecordOf<'answer'>[] {
    return this.state.answers.get(requestId) ?? [];
  }
}
