/**
 * The owner of the present epoch, as a pure fold over the records of the control log in log order:
 * the chain of accepted claims, one for each epoch. Kafka has no compare-and-set, so every node
 * judges a claim when it reads it, by the same rule: of the claims for the next epoch the first one
 * in the log that names its predecessor wins, and all others are void. Two nodes that have read the
 * same log name the same owner; a node that has read less names the owner of an older epoch, never
 * another owner of the same one.
 */
import type { ControlRecord, RecordOf } from './control-records.ts';

export interface Owner {
  readonly epoch: number;
  readonly node: string;
  readonly claimId: string;
}

export interface ClaimState {
  /** Accepted claims; that of epoch e has the index e - 1. */
  readonly claims: readonly RecordOf<'claim'>[];
  /** The newest accepted claim, released or not: the next one has to name it. */
  readonly current: Owner | null;
  /** Set when the current claim was released. */
  readonly released: RecordOf<'release'> | null;
  /** Requests of switchovers that the current owner aborted: a release for one is ignored. */
  readonly aborted: ReadonlySet<string>;
}

export const noClaims: ClaimState = {
  claims: [],
  current: null,
  released: null,
  aborted: new Set(),
};

/** One step of the fold. Void records, and those that do not concern ownership, change nothing. */
export function foldClaim(state: ClaimState, record: ControlRecord): ClaimState {
  switch (record.kind) {
    case 'claim':
      return isNext(state, record) ? accept(state, record) : state;
    case 'release':
      // Release and abort of one switchover exclude each other: the first in the log is valid. So
      // a release that arrives late does not depose an owner that lifted its guard after an abort.
      if (!isOwners(state, record) || state.aborted.has(record.request)) return state;
      return { ...state, released: record };
    case 'abort':
      if (!isOwners(state, record)) return state;
      return { ...state, aborted: new Set([...state.aborted, record.request]) };
    default:
      return state;
  }
}

/** In one unbroken log the epoch would be enough; the predecessor detects a replaced log. */
function isNext(state: ClaimState, claim: RecordOf<'claim'>): boolean {
  const { epoch, predecessor } = nextClaim(state, claim.node);
  // rule: claim-names-predecessor
  return claim.epoch === epoch && claim.predecessor === predecessor;
}

function accept(state: ClaimState, claim: RecordOf<'claim'>): ClaimState {
  return {
    claims: [...state.claims, claim],
    current: { epoch: claim.epoch, node: claim.node, claimId: claim.id },
    released: null,
    aborted: new Set(),
  };
}

function isOwners(state: ClaimState, record: { claim: string; node: string }): boolean {
  const owner = ownerOf(state);
  return owner?.claimId === record.claim && owner.node === record.node;
}

/** The node that may write; null before the first claim and after a release. */
export function ownerOf(state: ClaimState): Owner | null {
  return state.released === null ? state.current : null;
}

/** The only claim that can be accepted after this state; any node may append it. */
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

/**
 * Whether another node has claimed an epoch after the one that a node leads. By a state that is
 * older than that epoch nothing is known.
 */
export function isDeposed({ current }: ClaimState, node: string, epoch: number): boolean {
  return current !== null && current.epoch > epoch && current.node !== node;
}
