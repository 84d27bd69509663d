/**
 * Narrows a difference between two tables down to its keys. Flows in: digests of both sides, asked
 * for bucket by bucket, where a bucket is all rows whose key's hash begins with certain hex digits;
 * flows out: the keys that differ, how, and how many there are. A bucket that differs is split
 * until the rows in question are few enough to be listed key by key. Bounded: when too much differs
 * for that, the first buckets are listed and the others counted as one row at least. No I/O.
 */
import { type Digest, equalDigests, noRows } from './table-digest.ts';

/** Hex digits of a key's hash that are taken for the key itself. */
export const keyDigits = 32;

/** What to read next: one digest for each beginning of `digits` that a row's key has. */
export interface BucketQuestion {
  readonly digits: number;
  /** Only keys that begin with one of these, all equally long; '' is every key. */
  readonly within: readonly string[];
}

export interface Bucket extends Digest {
  /** Where one of its rows lies. */
  readonly tid: string;
}

/** By their digits. Only buckets that have rows. */
export type Buckets = ReadonlyMap<string, Bucket>;

interface BothBuckets {
  readonly leader: Buckets;
  readonly follower: Buckets;
}

/** One pass over both tables. */
export type BucketReader = (question: BucketQuestion) => Promise<BothBuckets>;

export interface NarrowingBounds {
  /** Buckets that one answer may have. */
  readonly buckets: number;
  /** Rows of a side that may be listed. */
  readonly listedRows: number;
}

/** Some 50 MB at most, and a full scan for each factor of 16 thousand in the number of rows. */
export const defaultBounds: NarrowingBounds = { buckets: 16_384, listedRows: 50_000 };

/** Seen from the follower: a row that it lacks, one that it has too many, one that is another. */
export type DifferenceKind = 'missing' | 'extra' | 'different';

export interface KeyDifference {
  readonly kind: DifferenceKind;
  readonly leaderTid: string | null;
  readonly followerTid: string | null;
}

export interface Narrowed {
  /** All that were found, in the order of their hashes, which is the same in every run. */
  readonly found: readonly KeyDifference[];
  /** How many keys differ; when `exact` is false, at least. */
  readonly rows: bigint;
  readonly exact: boolean;
}

/** A bucket that is not the same on both sides. */
interface Suspect {
  readonly digits: string;
  /** On the side that has more. */
  readonly rows: bigint;
  /** No fewer keys than that differ. */
  readonly atLeast: bigint;
}

interface Step extends BucketQuestion {
  /** At least so many keys differ in buckets that are not looked at any further. */
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
 * Lists all suspects when they are few; else splits all of them when the answer has room for that;
 * else goes on with the first of them only.
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

/** How many of the first suspects have together no more than so many rows. */
function countWithin(suspects: readonly Suspect[], rowsMax: bigint): number {
  let rows = 0n;
  const over = suspects.findIndex((suspect) => {
    rows += suspect.rows;
    return rows > rowsMax;
  });
  return over === -1 ? suspects.length : over;
}

/** Each digit makes sixteen buckets out of one. */
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

/** In order, so that every run looks at the same. */
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
  // Every bucket that was listed differs in a key, or its values print otherwise than before.
  const isWhole = found.length >= step.within.length;
  return isWhole
    ? { found, rows, exact: beyond === 0n }
    : { found, rows: BigInt(step.within.length) + beyond, exact: false };
}

function kindOf(leaderTid: string | null, followerTid: string | null): DifferenceKind {
  if (followerTid === null) return 'missing';
  return leaderTid === null ? 'extra' : 'different';
}
