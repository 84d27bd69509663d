/**
 * Which value a sequence is set to on a node that is promoted or detached. Flows in: the sequence,
 * how far the leader's was, and what its columns hold; flows out: a value that no nextval after it
 * repeats, or what to read first, and in words what it cannot promise. A sequence is never set
 * backwards, nor out of its bounds. Pure.
 *
 * The leader's own position decides, with a margin for what it handed out since. Rows decide only
 * where they are near it: a single id at the end of the range, which an application writes by hand,
 * must not use the sequence up. Where the position is not known, the largest value of the columns
 * takes its place, unless there is no room above it.
 */
import type { SequenceColumn, SequenceFacts } from '../../catalog/sequences.ts';
import type { SavedSequence } from '../../follower/state/sequence-positions.ts';

type SequenceBounds = Pick<
  SequenceFacts,
  'increment' | 'cache' | 'min' | 'max' | 'cycles' | 'columns'
>;

export interface SequenceKnown {
  readonly sequence: SequenceBounds;
  /** What nextval or setval gave last on this node; null where nextval gives the first value. */
  readonly lastValue: bigint | null;
  /** How far it was on the leader; null where the topic has no record of it. */
  readonly published: Omit<SavedSequence, 'schema' | 'name'> | null;
  /**
   * The outermost value in its integer columns, within its bounds: the largest, or the smallest of
   * a descending sequence; null where there is none.
   */
  readonly used: bigint | null;
  /** What a search for a gap found; undefined before it, null where it found none or failed. */
  readonly behindGap?: bigint | null;
}

/** Rows further away than `gap` are not of the sequence. */
export interface GapSearch {
  readonly kind: 'search';
  /** Upwards from here, up to the first gap; null: from the outermost value down to a gap. */
  readonly from: bigint | null;
  readonly gap: bigint;
  /** The last value that the sequence can reach. */
  readonly to: bigint;
}

export interface SequenceDecision {
  readonly kind: 'set';
  /** Null leaves it as it is. */
  readonly value: bigint | null;
  /** What is not certain or will fail; null where nothing is. */
  readonly lack: string | null;
}

/** Values that may have been handed out and never arrived: rolled back, cached, or lost. */
const marginMin = 1_000n;
const marginPerCache = 32n;
/** The leader's position is read once a second, and may be read late. */
const marginPerStride = 4n;
/** More than any application takes from a sequence, and rolls back, between two reads. */
const gapSteps = 1_000_000n;
/** Of the range: a gap must fit a sequence of few values. */
const gapShare = 8n;

const unknownPosition = 'the topic has no record of it, and no integer column holds a value of it';

export function judgeSequence(known: SequenceKnown): GapSearch | SequenceDecision {
  const scale = new Scale(known);
  return known.sequence.cycles ? judgeCycle(known, scale) : judgeStraight(known, scale);
}

/** The values of one sequence as if it were ascending, and what counts as near. */
class Scale {
  readonly limit: bigint;
  readonly low: bigint;
  readonly step: bigint;
  readonly gap: bigint;
  readonly margin: bigint;
  /** The last value that is known to be handed out; null where none is. */
  readonly anchor: bigint | null;
  readonly #direction: bigint;

  constructor({ sequence, published, lastValue }: SequenceKnown) {
    const { increment, cache, min, max, columns } = sequence;
    this.#direction = increment > 0n ? 1n : -1n;
    this.step = increment * this.#direction;
    this.low = this.#direction > 0n ? min : -max;
    this.anchor = this.#anchorOf(published, lastValue);
    const end = this.#direction > 0n ? max : -min;
    const columnEnds = columns.map((column) => this.#endOf(column)).filter((at) => at !== null);
    const reached = columnEnds.reduce(smaller, end);
    // What another column took is past what this type holds: the sequence has left it behind.
    const isPast = reached < this.low || (this.anchor !== null && this.anchor > reached);
    this.limit = isPast ? end : reached;
    const stride = marginPerStride * (published?.stride ?? 0n);
    const wanted = [marginMin * this.step, marginPerCache * cache * this.step, stride].reduce(
      larger,
    );
    const gapMax = (this.limit - this.low) / gapShare;
    this.gap = larger(smaller(larger(gapSteps * this.step, 2n * wanted), gapMax), 0n);
    this.margin = smaller(wanted, this.gap / 2n);
  }

  /** Both ways. */
  turn(value: bigint): bigint {
    return value * this.#direction;
  }

  #anchorOf(published: SequenceKnown['published'], lastValue: bigint | null): bigint | null {
    if (published === null) return lastValue === null ? null : this.turn(lastValue);
    const at = this.turn(published.lastValue);
    return published.isCalled ? at : at - this.step;
  }

  #endOf({ max }: SequenceColumn): bigint | null {
    if (max === null) return null;
    return this.#direction > 0n ? max : max + 1n;
  }
}

/** Its values come again by themselves: what rows hold says nothing about how far it is. */
function judgeCycle({ used, published }: SequenceKnown, scale: Scale): SequenceDecision {
  const { anchor, margin, limit, low } = scale;
  const base = anchor ?? (used === null ? null : scale.turn(used));
  const lack = published === null ? unknownPosition : null;
  if (base === null) return { kind: 'set', value: null, lack };
  const wanted = base + margin;
  const past = wanted - limit;
  const wrapped = past > 0n ? smaller(low + past - 1n, limit) : larger(wanted, low);
  return { kind: 'set', value: scale.turn(wrapped), lack };
}

function judgeStraight(known: SequenceKnown, scale: Scale): GapSearch | SequenceDecision {
  const base = baseOf(known, scale);
  if (base === null) return { kind: 'set', value: null, lack: unknownLack(known) };
  if (typeof base !== 'bigint') return base;
  const { limit, low, margin } = scale;
  // rule: sequence-behind-last-read
  const wanted = base + margin <= limit ? base + margin : smaller(base, limit);
  const here = known.lastValue === null ? null : scale.turn(known.lastValue);
  const isBehind = wanted >= low && (here === null || here < wanted);
  const reached = isBehind ? wanted : here;
  const isUsedUp = reached !== null && reached + scale.step > limit;
  const guess = unknownLack(known) ?? belowGap(known, scale, base);
  const lack = isUsedUp ? `no value is left before ${scale.turn(limit)}` : guess;
  return { kind: 'set', value: isBehind ? scale.turn(wanted) : null, lack };
}

/** Values of a column that is no integer, or that no column holds, are not known here. */
function unknownLack({ published, used, sequence }: SequenceKnown): string | null {
  return published === null && used === null && !onlyIntegers(sequence) ? unknownPosition : null;
}

function belowGap(known: SequenceKnown, scale: Scale, base: bigint): string | null {
  const { published, used, behindGap } = known;
  if (published !== null || behindGap == null || used === null || scale.turn(used) === base)
    return null;
  const below = `below the gap between ${scale.turn(base)} and the values up to ${used}`;
  return `the topic has no record of it: it was set ${below}`;
}

/** The last value that counts as handed out; null for none. */
function baseOf(known: SequenceKnown, scale: Scale): bigint | null | GapSearch {
  const { published, behindGap } = known;
  const { anchor, gap, limit } = scale;
  const used = known.used === null ? null : scale.turn(known.used);
  const found = behindGap == null ? null : scale.turn(behindGap);
  const to = scale.turn(limit);
  if (published === null) {
    if (used === null) return anchor;
    const outermost = anchor === null ? used : larger(anchor, used);
    if (limit - used >= gap) return outermost;
    if (behindGap === undefined) return { kind: 'search', from: null, gap, to };
    return found === null ? outermost : larger(anchor ?? found, found);
  }
  if (anchor === null) return null;
  const isUnused = !published.isCalled && used === null && onlyIntegers(known.sequence);
  if (isUnused) return null;
  if (used === null || used <= anchor) return anchor;
  // rule: far-value-is-no-position
  if (used <= anchor + gap) return used;
  if (behindGap === undefined) return { kind: 'search', from: scale.turn(anchor), gap, to };
  if (found !== null) return larger(anchor, found);
  // The rows between are not known: past all of them is safe where room is left.
  return limit - used >= gap ? used : anchor;
}

function onlyIntegers({ columns }: SequenceBounds): boolean {
  return columns.length > 0 && columns.every(({ max }) => max !== null);
}

function larger(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}

function smaller(a: bigint, b: bigint): bigint {
  return a < b ? a : b;
}
