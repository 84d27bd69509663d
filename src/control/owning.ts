/**
 * How a node comes to own an epoch and how it loses it: claim, init, verify, drain, begin, lead, as
 * a state machine without I/O. Events go in: what the control log says and how the last action
 * ended. Actions come out, to be done in their order. It promises, in whatever order nodes pause,
 * crash and overtake each other: after the epoch begin of an owner no record of an older owner
 * enters the log.
 *
 * Why it holds. Kafka takes records only from the producer that was initialised last. Say a stale
 * owner Z writes after the epoch begin of N. Then Z initialised after that epoch begin, hence after
 * N's claim; Z's verification comes after its own init, hence it has read N's claim, and Z has
 * stepped down without writing. What remains is that a stale Z fences N once, and N restarts.
 *
 * The same path serves start, restart after an error, torn batch, crash and promotion.
 */
import { unreachable } from '../errors/bug.ts';
import { isMine, nextClaim } from './claim.ts';
import type { RecordOf } from './control-records.ts';
import type { ControlState } from './control-state.ts';

type Phase =
  | { readonly kind: 'idle' }
  /** Reads the control log to its end: does this node own an epoch? */
  | { readonly kind: 'checking'; readonly mayClaim: number | null }
  | { readonly kind: 'claiming'; readonly epoch: number }
  /** Fences the former owner and ends its open transaction. */
  | { readonly kind: 'initing'; readonly epoch: number }
  | { readonly kind: 'verifying'; readonly epoch: number }
  /** Reads every partition from the common checkpoint to its end. */
  | { readonly kind: 'draining'; readonly epoch: number }
  | { readonly kind: 'beginning'; readonly epoch: number }
  | { readonly kind: 'leading'; readonly epoch: number }
  | { readonly kind: 'stepped-down' };

export interface Owning {
  readonly node: string;
  readonly phase: Phase;
  /** Identifies the action that is under way; a reply to an earlier one is dropped. */
  readonly ticket: number;
}

/**
 * What the log holds of an epoch of this node: a torn batch past the common checkpoint, with which
 * the epoch is over; its whole begin; or neither. An epoch is also over when its slot is lost.
 */
export type Drained = 'over' | 'begun' | 'not-begun';

export type OwningEvent =
  /**
   * `mayClaim` is the one epoch that may be claimed; null is none: then the node only continues an
   * epoch of its own. A request for a promotion means to end the epoch that was current then. When
   * another node has claimed the next one since, that node keeps it.
   */
  | { readonly kind: 'start'; readonly mayClaim: number | null }
  | { readonly kind: 'control'; readonly control: ControlState }
  /** A nonce appended after the action was given has been read; `control` is at least as new. */
  | { readonly kind: 'verified'; readonly ticket: number; readonly control: ControlState }
  | { readonly kind: 'inited'; readonly ticket: number }
  | {
      readonly kind: 'drained';
      readonly ticket: number;
      readonly found: Drained;
      readonly control: ControlState;
    }
  | { readonly kind: 'begun'; readonly ticket: number }
  /** Any error of the producer, or of reading the log with it: the producer is discarded. */
  | { readonly kind: 'failed'; readonly ticket: number };

export type OwningAction =
  /** Appended once. How the append ended does not matter: the verification after it decides. */
  | { readonly kind: 'claim'; readonly claim: Pick<RecordOf<'claim'>, 'epoch' | 'predecessor'> }
  /** Repeated with new nonces until one is read: without the control log no node may lead. */
  | { readonly kind: 'verify'; readonly ticket: number }
  | { readonly kind: 'init'; readonly ticket: number }
  | { readonly kind: 'drain'; readonly epoch: number; readonly ticket: number }
  | { readonly kind: 'begin'; readonly epoch: number; readonly ticket: number }
  | { readonly kind: 'lead'; readonly epoch: number; readonly ticket: number }
  | { readonly kind: 'discard-producer' }
  /** Stop publishing and arm the guard. */
  | { readonly kind: 'step-down' };

export interface OwningStep {
  readonly owning: Owning;
  readonly actions: readonly OwningAction[];
}

export function notOwning(node: string): Owning {
  return { node, phase: { kind: 'idle' }, ticket: 0 };
}

export function stepOwning(owning: Owning, event: OwningEvent): OwningStep {
  if ('ticket' in event && event.ticket !== owning.ticket) return { owning, actions: [] };
  switch (event.kind) {
    case 'start':
      return start(owning, event.mayClaim);
    case 'control':
      return watch(owning, event.control);
    case 'verified':
      return verified(owning, event.control);
    case 'inited':
      // rule: verify-after-init
      return owning.phase.kind === 'initing' ? verify(owning, owning.phase.epoch) : stay(owning);
    case 'drained':
      return owning.phase.kind === 'draining'
        ? drained(owning, owning.phase.epoch, event.found, event.control)
        : stay(owning);
    case 'begun':
      return owning.phase.kind === 'beginning' ? lead(owning, owning.phase.epoch) : stay(owning);
    case 'failed':
      return holdsProducer(owning.phase) ? check(owning, null) : stay(owning);
    default:
      return unreachable(event);
  }
}

function start(owning: Owning, mayClaim: number | null): OwningStep {
  const { kind } = owning.phase;
  return kind === 'idle' || kind === 'stepped-down' ? check(owning, mayClaim) : stay(owning);
}

/**
 * A claim of another node, or the own release, ends the ownership in every phase. A claim of this
 * node may be read after its append was given up: it has deposed the former owner all the same, so
 * this node owns the epoch whenever it reads that, and begins it.
 */
function watch(owning: Owning, control: ControlState): OwningStep {
  const { phase, node } = owning;
  if (holdsProducer(phase)) {
    return isMine(control, node, phase.epoch) ? stay(owning) : stepDown(owning);
  }
  const epoch = control.current?.epoch ?? 0;
  const isLate = phase.kind === 'claiming' || phase.kind === 'stepped-down';
  // rule: late-claim-is-begun
  return isLate && isMine(control, node, epoch) ? init(owning, epoch) : stay(owning);
}

function verified(owning: Owning, control: ControlState): OwningStep {
  const { phase, node } = owning;
  switch (phase.kind) {
    case 'checking': {
      const epoch = control.current?.epoch ?? 0;
      if (isMine(control, node, epoch)) return init(owning, epoch);
      return phase.mayClaim === epoch + 1 ? claim(owning, control) : stepDown(owning);
    }
    case 'claiming':
      return isMine(control, node, phase.epoch) ? init(owning, phase.epoch) : stepDown(owning);
    case 'verifying':
      // Never a second init here: it would fence the rightful owner again.
      return isMine(control, node, phase.epoch) ? drain(owning, phase.epoch) : stepDown(owning);
    default:
      return stay(owning);
  }
}

function drained(owning: Owning, epoch: number, found: Drained, control: ControlState): OwningStep {
  switch (found) {
    case 'over':
      // A new epoch has the checkpoint as base, and voids records that some partitions lack.
      return isMine(control, owning.node, epoch) ? claim(owning, control) : stepDown(owning);
    case 'not-begun':
      return go(owning, { kind: 'beginning', epoch }, (ticket) => [
        { kind: 'begin', epoch, ticket },
      ]);
    case 'begun':
      return lead(owning, epoch);
    default:
      return unreachable(found);
  }
}

function check(owning: Owning, mayClaim: number | null): OwningStep {
  return go(owning, { kind: 'checking', mayClaim }, (ticket) => [
    { kind: 'discard-producer' },
    { kind: 'verify', ticket },
  ]);
}

function claim(owning: Owning, control: ControlState): OwningStep {
  const { epoch, predecessor } = nextClaim(control, owning.node);
  return go(owning, { kind: 'claiming', epoch }, (ticket) => [
    { kind: 'claim', claim: { epoch, predecessor } },
    { kind: 'verify', ticket },
  ]);
}

function init(owning: Owning, epoch: number): OwningStep {
  return go(owning, { kind: 'initing', epoch }, (ticket) => [
    { kind: 'discard-producer' },
    { kind: 'init', ticket },
  ]);
}

function verify(owning: Owning, epoch: number): OwningStep {
  return go(owning, { kind: 'verifying', epoch }, (ticket) => [{ kind: 'verify', ticket }]);
}

function drain(owning: Owning, epoch: number): OwningStep {
  return go(owning, { kind: 'draining', epoch }, (ticket) => [{ kind: 'drain', epoch, ticket }]);
}

function lead(owning: Owning, epoch: number): OwningStep {
  return go(owning, { kind: 'leading', epoch }, (ticket) => [{ kind: 'lead', epoch, ticket }]);
}

function stepDown(owning: Owning): OwningStep {
  return go(owning, { kind: 'stepped-down' }, () => [
    { kind: 'discard-producer' },
    { kind: 'step-down' },
  ]);
}

function stay(owning: Owning): OwningStep {
  return { owning, actions: [] };
}

function go(
  owning: Owning,
  phase: Phase,
  actions: (ticket: number) => readonly OwningAction[],
): OwningStep {
  const ticket = owning.ticket + 1;
  return { owning: { ...owning, phase, ticket }, actions: actions(ticket) };
}

type Held = Extract<
  Phase,
  { kind: 'initing' | 'verifying' | 'draining' | 'beginning' | 'leading' }
>;

function holdsProducer(phase: Phase): phase is Held {
  switch (phase.kind) {
    case 'initing':
    case 'verifying':
    case 'draining':
    case 'beginning':
    case 'leading':
      return true;
    case 'idle':
    case 'checking':
    case 'claiming':
    case 'stepped-down':
      return false;
    default:
      return unreachable(phase);
  }
}
