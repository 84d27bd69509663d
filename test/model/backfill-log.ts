/**
 * The log of a leader that reads rows beside its stream, and a follower of it. Takes changes, ends
 * of transactions with the rows as of then, and points; gives records to be searched, and throws at
 * the first violation: where a point names nothing as incomplete, the newest record of each key is
 * its row, for the log and for the follower.
 */
import type { Checkpoint, RowChange, UnfinishedTable } from '../../src/change/change.ts';
import type { Lsn } from '../../src/change/lsn.ts';
import type { ContentRecord } from '../../src/follower/apply/stages.ts';
import { pointOf } from '../support/builders.ts';
import { type FollowerRules, ModelFollower, type Rows } from './model-follower.ts';
import { keys, relationId } from './model-writes.ts';

const stopsMax = 6;

export class BackfillLog {
  readonly follower: ModelFollower;
  readonly #truths = new Map<Lsn, Rows | null>();
  readonly #records: ContentRecord[] = [];
  /** What no point covers yet. */
  #batch: ContentRecord[] = [];
  #appended = 0;
  #checkpoint: Checkpoint;

  constructor(rules: FollowerRules, start: Lsn, before: Rows) {
    this.#checkpoint = this.checkpointAt(start);
    this.#truths.set(start, before);
    const { at } = this.#checkpoint;
    this.follower = new ModelFollower(rules, this.#truths, at, before.size > 0);
  }

  /** A truncate or a resnapshot ends what is below. */
  get records(): readonly ContentRecord[] {
    return this.#records;
  }

  checkpointAt(lsn: Lsn): Checkpoint {
    return { at: { epoch: 1, lsn }, nextOffsets: [BigInt(this.#appended)] };
  }

  row({ op, identity, values, unchanged, was }: RowChange, commitLsn: Lsn): void {
    this.#append({
      ...{ kind: 'row', op, relationId, identity, was, ...this.#placed(commitLsn) },
      key: Buffer.from(identity.join()),
      value: values === null ? null : Buffer.from(JSON.stringify(values)),
      unchanged: unchanged.length === 0 ? null : unchanged,
    });
  }

  table(kind: 'truncate' | 'reread', commitLsn: Lsn): void {
    this.#append({ kind, relationId, ...this.#placed(commitLsn) });
  }

  #placed(commitLsn: Lsn) {
    const position = { epoch: 1, commitLsn, ordinal: this.#appended };
    const offset = BigInt(this.#appended);
    return { position, offset, partition: 0, timestampMs: 0, commitTimeMicros: 0n };
  }

  #append(record: ContentRecord): void {
    this.#appended += 1;
    this.#batch.push(record);
    this.#records.push(record);
  }

  /** A transaction is streamed; `truth` is null where something was written and not streamed. */
  ended(upto: Lsn, truth: Rows | null): void {
    this.#truths.set(upto, truth);
  }

  /** What was streamed up to `upto` can be read. */
  point(upto: Lsn, unhealed: Checkpoint | null, unfinished: readonly UnfinishedTable[]): void {
    const checkpoint = this.checkpointAt(upto);
    const point = pointOf({ upto, unhealed, unfinished, previous: this.#checkpoint });
    this.#checkpoint = checkpoint;
    const size = { bytes: 0, newestCommitMicros: 0n, appendMs: [0] };
    this.follower.take({ kind: 'batch', partitions: [this.#batch], point, checkpoint, ...size });
    this.#batch = [];
    const truth = this.#truths.get(upto);
    if (unhealed === null && unfinished.length === 0 && truth != null) this.#check(truth);
  }

  /** The follower applies up to the end, or to any LSN below, or nothing. */
  follow(how: number): void {
    const clears = how % 5 === 0;
    if (how % 3 > 0) this.follower.apply({ kind: 'none' }, clears);
    const ends = [...this.#truths.keys()];
    const lsn = ends[ends.length - 1 - (Math.trunc(how / 15) % stopsMax)];
    if (how % 6 === 0 && lsn !== undefined) {
      this.follower.apply({ kind: 'to', at: { epoch: 1, lsn } }, clears);
    }
  }

  #check(truth: Rows): void {
    const from = this.#records.findLastIndex(({ kind }) => kind !== 'row') + 1;
    const rows = this.#records.slice(from);
    for (const key of keys) {
      const newest = rows.findLast((record) => record.kind === 'row' && record.identity[0] === key);
      const row = truth.get(key);
      const wanted = row === undefined ? null : [key, row.small, row.large];
      const value = newest?.kind === 'row' ? newest.value : null;
      const held = value === null ? null : JSON.parse(value.toString());
      if (`${held}` !== `${wanted}`) throw new Error(`the topic holds ${held}, not ${wanted}`);
    }
  }
}
