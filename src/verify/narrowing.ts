/**
 * Narrows a difference between two tables down to the keys that differ, by digests of buckets of
 * both sides. A bucket is all rows whose key's hash begins with certain hex digits. A bucket that
 * differs is split until its rows are few enough to be listed key by key. Bounded: when too many
 * buckets differ, the first are listed and each of the others counts as at least one row. No I/O.
 */
import { type Digest, equalDigests, noRows } from './table-digest.ts';

/** So many hex digits of a key's hash identify the key. */
export const keyDigits = 32;

/** The next read: one digest for each beginning of `digits` hex digits that occurs. */
export interface BucketQuestion {
  readonly digits: number;
  /** Only hashes that begin with one of these, all of equal length; '' is every hash. */
  readonly within: readonly string[];
}

export interface Bucket extends Digest {
  /** The ctid of one of its rows. */
  readonly tid: string;
}

/** By their digits; only buckets with rows. */
export type Buckets = ReadonlyMap<string, Bucket>;

interface BothBuckets {
  readonly leader: Buckets;
  readonly follower: Buckets;
}

/** One pass over both tables. */
export type BucketReader = (question: BucketQuestion) => Promise<BothBuckets>;

export interface NarrowingBounds {
  /** The largest number of buckets in one answer. */
  readonly buckets: number;
  /** The largest number of rows of a side that are listed. */
  readonly listedRows: number;
}

/** At most some 50 MB, and one full scan for each factor of 16 thousand in the number of rows. */
export const defaultBounds: NarrowingBounds = { buckets: 16_384, listedRows: 50_000 };

/** On the follower the row is missing, exists only there, or has other values. */
export type DifferenceKind = 'missing' | 'extra' | 'different';

export interface KeyDifference {
  readonly kind: DifferenceKind;
  readonly leaderTid: string | null;
  readonly followerTid: string | null;
}

export interface Narrowed {
  /** In the order of their hashes, which is the same in every run. */
  readonly found: readonly KeyDifference[];
  /** The number of keys that differ; a lower bound when `exact` is false. */
  readonly rows: bigint;
  readonly exact: boolean;
}

/** A bucket that differs. */
interface Suspect {
  readonly digits: string;
  /** On the side that has more. */
  readonly rows: bigint;
  /** A lower bound of the keys that differ. */
  readonly atLeast: bigint;
}

interface Step extends BucketQuestion {
  /** A lower bound of the keys that differ in buckets that are not split any further. */
  readonly beyond: bigint;
}

/** `rows` is the number of rows of the side that has more. */
export async function narrow(
  read: BucketReader,
  rows: bigint,
  bounds: NarrowingBounds = defaultBounds,
): Promise<Narrowed> {
  let suspects: readonly Suspect[] = [{ digits: '', rows, atLeast: 1n }];
  let beyond = 0n;
  for (;;) {
    const step = nextStep(suspects, bounds);
    beyond += step.beyond;
    const both = await read(step);
    if (step.digits === keyDigits) return outcomeOf(both, step, beyond);
    suspects = suspectsOf(both);
  }
}

/**
 * Lists all suspects when they have few rows; else splits all of them when the answer stays within
 * the bounds; else continues with the first of them only.
 */
function nextStep(suspects: readonly Suspect[], bounds: NarrowingBounds): Step {
  const digits = suspects[0]?.digits.length ?? 0;
  const take = (count: number, finer: number): Step => ({
    digits: Math.min(digits + finer, keyDigits),
    within: suspects.slice(0, count).map((suspect) => suspect.digits),
    beyond: suspects.slice(count).reduce((sum, { atLeast }) => sum + atLeast, 0n),
  });
  const listable = countWithin(suspects, BigInt(bounds.listedRows));
  if (listable === suspects.length) return take(listable, keyDigits);
  const finer = finerDigits(suspects.length, bounds.buckets);
  if (finer > 0) return take(suspects.length, finer);
  if (listable > 0) return take(listable, keyDigits);
  return take(Math.max(1, Math.floor(bounds.buckets / 16)), 1);
}

/** How many suspects, from the first, have at most `rowsMax` rows together. */
function countWithin(suspects: readonly Suspect[], rowsMax: bigint): number {
  let rows = 0n;
  const over = suspects.findIndex((suspect) => {
    rows += suspect.rows;
    return rows > rowsMax;
  });
  return over === -1 ? suspects.length : over;
}

/** Each digit splits a bucket into sixteen. */
function finerDigits(suspects: number, bucketsMax: number): number {
  let finer = 0;
  for (let buckets = suspects * 16; buckets <= bucketsMax; buckets *= 16) finer += 1;
  return finer;
}

function suspectsOf(both: BothBuckets): readonly Suspect[] {
  const { leader, follower } = both;
  return differing(both).map((digits) => {
    const [here, there] = [leader.get(digits)?.rows ?? 0n, follower.get(digits)?.rows ?? 0n];
    const [more, fewer] = here > there ? [here, there] : [there, here];
    return { digits, rows: more, atLeast: more > fewer ? more - fewer : 1n };
  });
}

/** Sorted, so that every run lists the same keys. */
function differing({ leader, follower }: BothBuckets): readonly string[] {
  return [...new Set([...leader.keys(), ...follower.keys()])]
    .filter((digits) => {
      return !equalDigests(leader.get(digits) ?? noRows, follower.get(digits) ?? noRows);
    })
    .sort();
}

function outcomeOf(both: BothBuckets, step: Step, beyond: bigint): Narrowed {
  const found = differing(both).map((digits): KeyDifference => {
    const leaderTid = both.leader.get(digits)?.tid ?? null;
    const followerTid = both.follower.get(digits)?.tid ?? null;
    return { kind: kindOf(leaderTid, followerTid), leaderTid, followerTid };
  });
  const rows = BigInt(found.length) + beyond;
  // Fewer were found where a value was printed otherwise than in the pass before.
  const isComplete = found.length >= step.within.length;
  return isComplete
    ? { found, rows, exact: beyond === 0n }
    : { found, rows: BigInt(step.within.length) + beyond, exact: false };
}

function kindOf(leaderTid: string | null, followerTid: string | null): DifferenceKind {
  if (followerTid === null) return 'missing';
  return leaderTid === null ? 'extra' : 'different';
}
