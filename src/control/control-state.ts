/**
 * The content of the control log, as a pure fold: records in log order, in portions of any size, to
 * a ControlState that is never changed afterwards. It promises that neither the size of the
 * portions nor compaction makes a difference: a node that reads the log years later has the state
 * of the nodes that followed it while it was written.
 *
 * The state grows with the actions of users (named points, commands, promotions), as the log does.
 */
import { compareEpochLsn, type EpochLsn } from '../change/position.ts';
import { unreachable } from '../errors/bug.ts';
import { type ClaimState, foldClaim, noClaims } from './claim.ts';
import type { ControlRecord, RecordOf } from './control-records.ts';

export interface ControlState extends ClaimState {
  /** Null until `init` has written it. */
  readonly stream: RecordOf<'stream'> | null;
  /** Named points; the first record of a label counts. */
  readonly labels: ReadonlyMap<string, RecordOf<'point'>>;
  readonly startNumbers: ReadonlyMap<string, number>;
  /** By node, the last start: from which database it was served, and when that was recorded. */
  readonly starts: ReadonlyMap<string, RecordOf<'start'>>;
  /** By node, the change at which its agent stopped as leader and did not go on since. */
  readonly stops: ReadonlyMap<string, RecordOf<'stop'>>;
  /** By id, damage that was not repaired. */
  readonly openDamage: ReadonlyMap<string, RecordOf<'damage'>>;
  /** By id, all damage that was ever found, in the order of the log. */
  readonly damage: ReadonlyMap<string, RecordOf<'damage'>>;
  /** By the id of the damage that it closes. */
  readonly repairs: ReadonlyMap<string, RecordOf<'repair'>>;
  /** By node, where it left the cluster; the first record counts. */
  readonly detached: ReadonlyMap<string, RecordOf<'detach'>>;
  readonly durability: RecordOf<'durability'> | null;
  readonly smallestCompactionLagMs: number | null;
  /** By request id: one record for each step, in the order of their last records. */
  readonly requests: ReadonlyMap<string, readonly RecordOf<'request'>[]>;
  readonly answers: ReadonlyMap<string, readonly RecordOf<'answer'>[]>;
}

export const emptyControlState: ControlState = {
  ...noClaims,
  stream: null,
  labels: new Map(),
  startNumbers: new Map(),
  starts: new Map(),
  stops: new Map(),
  openDamage: new Map(),
  damage: new Map(),
  repairs: new Map(),
  detached: new Map(),
  durability: null,
  smallestCompactionLagMs: null,
  requests: new Map(),
  answers: new Map(),
};

/** The state after these records. A portion copies the state once, not once per record. */
export function foldControl(state: ControlState, records: Iterable<ControlRecord>): ControlState {
  const draft = draftOf(state);
  for (const record of records) apply(draft, record);
  return draft;
}

function draftOf(state: ControlState) {
  return {
    ...state,
    labels: new Map(state.labels),
    startNumbers: new Map(state.startNumbers),
    starts: new Map(state.starts),
    stops: new Map(state.stops),
    openDamage: new Map(state.openDamage),
    damage: new Map(state.damage),
    repairs: new Map(state.repairs),
    detached: new Map(state.detached),
    requests: new Map(state.requests),
    answers: new Map(state.answers),
  };
}

type Draft = ReturnType<typeof draftOf>;

function apply(draft: Draft, record: ControlRecord): void {
  switch (record.kind) {
    case 'claim':
    case 'release':
    case 'abort':
      Object.assign(draft, foldClaim(draft, record));
      return;
    case 'stream':
      draft.stream ??= record;
      return;
    case 'point':
      if (!draft.labels.has(record.label)) draft.labels.set(record.label, record);
      return;
    case 'start':
      draft.startNumbers.set(record.node, record.number);
      draft.starts.set(record.node, record);
      return;
    case 'stop':
      if (record.error === null) draft.stops.delete(record.node);
      else draft.stops.set(record.node, record);
      return;
    case 'nonce':
      // It is evidence for the process that appended it: control-log.ts.
      return;
    case 'damage':
      draft.damage.set(record.id, record);
      if (!draft.repairs.has(record.id)) draft.openDamage.set(record.id, record);
      return;
    case 'repair':
      draft.repairs.set(record.damage, record);
      draft.openDamage.delete(record.damage);
      return;
    case 'detach':
      if (!draft.detached.has(record.node)) draft.detached.set(record.node, record);
      return;
    case 'durability':
      // What a deposed leader writes about its own epoch does not apply to the present one.
      if (record.epoch >= (draft.current?.epoch ?? 0)) draft.durability = record;
      return;
    case 'compaction-lag':
      draft.smallestCompactionLagMs = Math.min(
        record.ms,
        draft.smallestCompactionLagMs ?? record.ms,
      );
      return;
    case 'request':
      draft.requests.set(record.id, withStep(draft.requests.get(record.id), record));
      return;
    case 'answer':
      draft.answers.set(record.request, withStep(draft.answers.get(record.request), record));
      return;
    default:
      unreachable(record);
  }
}

/** The last record of a step counts and comes last, as compaction leaves it. */
function withStep<T extends { readonly step: string }>(
  steps: readonly T[] | undefined,
  record: T,
): readonly T[] {
  return [...(steps ?? []).filter(({ step }) => step !== record.step), record];
}

/** Up to where a topic that lost records was closed again: what is at or below lacks records. */
export function repairedTo({ damage, repairs }: ControlState): EpochLsn | null {
  const closed = [...damage.values()].flatMap(({ id, at }) => {
    return repairs.has(id) && at !== null ? [at] : [];
  });
  return closed.sort(compareEpochLsn).at(-1) ?? null;
}
