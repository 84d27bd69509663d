/**
 * Who leads, as a pure fold over the control log. Flows in: records in log order. Flows out: the
 * chain of accepted claims, one per epoch. Kafka has no compare-and-set, so a claim is judged when
 * it is read, by everybody in the same way: of the claims for the next epoch the first one in the
 * log that names its predecessor wins, and all others never happened. Who has read the same log
 * names the same owner; who has read less names an owner of an older epoch, never another one.
 */
import type { ControlRecord, RecordOf } from './control-records.ts';

export interface Owner {
  readonly epoch: number;
  readonly node: string;
  readonly claimId: string;
}

export interface ClaimState {
  /** Accepted claims; that of epoch e stands at e - 1. */
  readonly claims: readonly RecordOf<'claim'>[];
  /** The newest accepted claim, released or not: the next one has to name it. */
  readonly current: Owner | null;
  /** Set when the current claim was released. */
  readonly released: RecordOf<'release'> | null;
  /** Switchovers which the current owner gave up: they cannot be released any more. */
  readonly abandoned: ReadonlySet<string>;
}

export const noClaims: ClaimState = {
  claims: [],
  current: null,
  released: null,
  abandoned: new Set(),
};

/** One step of the fold; records that do not concern ownership, or do not count, change nothing. */
export function foldClaim(state: ClaimState, record: ControlRecord): ClaimState {
  switch (record.kind) {
    case 'claim':
      return isNext(state, record) ? accept(state, record) : state;
    case 'release':
      // Release and abort of one switchover exclude each other: the first in the log counts. So an
      // owner that has lifted its guard after an abort is not deposed by a release still under way.
      if (!isOwners(state, record) || state.abandoned.has(record.request)) return state;
      return { ...state, released: record };
    case 'abort':
      if (!isOwners(state, record)) return state;
      return { ...state, abandoned: new Set([...state.abandoned, record.request]) };
    default:
      return state;
  }
}

/** The epoch alone would do in one unbroken log; the predecessor holds if the log was replaced. */
function isNext(state: ClaimState, claim: RecordOf<'claim'>): boolean {
  const { epoch, predecessor } = nextClaim(state, claim.node);
  return claim.epoch === epoch && claim.predecessor === predecessor;
}

function accept(state: ClaimState, claim: RecordOf<'claim'>): ClaimState {
  return {
    claims: [...state.claims, claim],
    current: { epoch: claim.epoch, node: claim.node, claimId: claim.id },
    released: null,
    abandoned: new Set(),
  };
}

function isOwners(state: ClaimState, record: { claim: string; node: string }): boolean {
  const owner = ownerOf(state);
  return owner?.claimId === record.claim && owner.node === record.node;
}

/** Who may write; null before the first claim and after a release. */
export function ownerOf(state: ClaimState): Owner | null {
  return state.released === null ? state.current : null;
}

/** The only claim that can be accepted after this state; any node may make it. */
export function nextClaim(
  state: ClaimState,
  node: string,
): Pick<RecordOf<'claim'>, 'epoch' | 'node' | 'predecessor'> {
  const { current } = state;
  return { epoch: (current?.epoch ?? 0) + 1, node, predecessor: current?.claimId ?? null };
}

export function isMine(state: ClaimState, node: string, epoch: number): boolean {
  const owner = ownerOf(state);
  return owner?.node === node && owner.epoch === epoch;
}
