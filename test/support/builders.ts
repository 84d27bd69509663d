/**
 * Small builders of changes and of records as a reader hands them on. Flows in: what a test cares
 * about; flows out: whole objects. A sketched topic keeps offsets, checkpoints and counts of each
 * partition as a leader would, so that tests say only what is wrong in it.
 */
import type {
  Checkpoint,
  EpochBegin,
  Point,
  RelationShape,
  RowOp,
} from '../../src/change/change.ts';
import { type Lsn, toLsn } from '../../src/change/lsn.ts';
import { type EpochLsn, type Position, pointPosition } from '../../src/change/position.ts';
import type { StreamRecord } from '../../src/topic/records/stream-record.ts';

export const streamId = 'stream-1';

export function lsn(value: number): Lsn {
  return toLsn(BigInt(value));
}

export function at(epoch: number, upto: number): EpochLsn {
  return { epoch, lsn: lsn(upto) };
}

export function place(epoch: number, commit: number, ordinal = 0): Position {
  return { epoch, commitLsn: lsn(commit), ordinal };
}

/** Columns are written `name type`; the first is the identity. */
export function shapeOf(id: string, ...columns: readonly string[]): RelationShape {
  const shaped = columns.map((text) => {
    const [name = '', ...type] = text.split(' ');
    return { id: name, name, type: type.join(' '), nullable: true, missing: null };
  });
  const [schema = '', name = ''] = id.split('.');
  const identity = shaped.slice(0, 1).map((column) => column.id);
  return { id, schema, name, columns: shaped, identity, dropped: false };
}

export function pointOf(changes: Partial<Point>): Point {
  return {
    streamId,
    label: null,
    epoch: 1,
    commit: lsn(0),
    upto: lsn(0),
    commitTimeMicros: 0n,
    counts: [],
    previous: { at: at(1, 0), nextOffsets: [] },
    unfinished: [],
    uncovered: [],
    unhealed: null,
    ...changes,
  };
}

export function beginOf(changes: Partial<EpochBegin>): EpochBegin {
  return {
    streamId,
    epoch: 1,
    leader: 'a',
    systemId: '7000000000000000001',
    timeline: 1,
    base: null,
    startLsn: lsn(0),
    slot: 'understudy_shop_1',
    keySchemaId: 1,
    unfinished: [],
    ...changes,
  };
}

/** What differs between kinds of records; the sketched topic adds the place. */
export type Content =
  | {
      readonly kind: 'row';
      readonly key: string;
      readonly value: string | null;
      readonly relationId?: string;
      readonly op?: RowOp;
    }
  | { readonly kind: 'truncate' | 'reread'; readonly relationId: string }
  | { readonly kind: 'relation'; readonly relation: RelationShape };

export class SketchedTopic {
  readonly partitions: StreamRecord[][];
  epoch = 1;
  checkpoint: Checkpoint;
  #counts: number[];

  /** Every partition begins with an epoch begin at offset 0, which is not in `partitions`. */
  constructor(partitions: number, startLsn = 0) {
    this.partitions = Array.from({ length: partitions }, () => []);
    this.checkpoint = { at: at(1, startLsn), nextOffsets: this.partitions.map(() => 1n) };
    this.#counts = this.partitions.map(() => 0);
  }

  /** One record of the transaction that commits at `commit`. */
  put(partition: number, commit: number, ordinal: number, content: Content): this {
    const position = place(this.epoch, commit, ordinal);
    const placed = { ...this.#placed(partition), position };
    this.#push(partition, contentRecord(placed, content));
    this.#counts[partition] = (this.#counts[partition] ?? 0) + 1;
    return this;
  }

  row(partition: number, commit: number, key: string, value: string | null): this {
    return this.put(partition, commit, 0, { kind: 'row', key, value });
  }

  everywhere(commit: number, ordinal: number, content: Content): this {
    for (let i = 0; i < this.partitions.length; i += 1) this.put(i, commit, ordinal, content);
    return this;
  }

  /** A point in all partitions moves the checkpoint; one in `only` some of them is torn. */
  point(upto: number, changes: Partial<Point> = {}, only = this.#all()): this {
    const { epoch } = this;
    const previous = this.checkpoint;
    const counts = [...this.#counts];
    const point = pointOf({ epoch, upto: lsn(upto), previous, counts, ...changes });
    const position = pointPosition({ epoch, lsn: lsn(upto) });
    for (const i of only) {
      this.#push(i, { kind: 'point', ...this.#placed(i), position, point });
    }
    if (only.length === this.partitions.length) this.#moveMark(at(epoch, upto));
    return this;
  }

  begin(
    epoch: number,
    startLsn: number,
    changes: Partial<EpochBegin> = {},
    only = this.#all(),
  ): this {
    const begin = beginOf({ epoch, startLsn: lsn(startLsn), base: this.checkpoint.at, ...changes });
    const position = pointPosition(at(epoch, startLsn));
    for (const i of only) {
      this.#push(i, { kind: 'epoch', ...this.#placed(i), position, begin });
    }
    this.epoch = epoch;
    if (only.length === this.partitions.length) this.#moveMark(at(epoch, startLsn));
    return this;
  }

  #all(): number[] {
    return this.partitions.map((_, i) => i);
  }

  #moveMark(to: EpochLsn): void {
    const nextOffsets = this.partitions.map((records) => BigInt(records.length) + 1n);
    this.checkpoint = { at: to, nextOffsets };
    this.#counts = this.partitions.map(() => 0);
  }

  #placed(partition: number) {
    const offset = BigInt(this.partitions[partition]?.length ?? 0) + 1n;
    return { partition, offset, timestampMs: 1_000, commitTimeMicros: 0n };
  }

  #push(partition: number, record: StreamRecord): void {
    this.partitions[partition]?.push(record);
  }
}

type Placed = Pick<
  StreamRecord,
  'partition' | 'offset' | 'timestampMs' | 'position' | 'commitTimeMicros'
>;

function contentRecord(placed: Placed, content: Content): StreamRecord {
  switch (content.kind) {
    case 'row': {
      const { key, value, relationId = 'public.t', op = value === null ? 'd' : 'u' } = content;
      return {
        kind: 'row',
        ...placed,
        op,
        relationId,
        identity: [key],
        key: Buffer.from(`${relationId} ${key}`),
        value: value === null ? null : Buffer.from(value),
        was: null,
        unchanged: null,
      };
    }
    case 'truncate':
      return { ...content, ...placed, kind: 'truncate' };
    case 'reread':
      return { ...content, ...placed, kind: 'reread' };
    case 'relation':
      return { ...content, ...placed };
  }
}
