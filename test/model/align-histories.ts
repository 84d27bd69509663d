/**
 * Random histories of a log with what they mean: transactions over two tables, in batches, torn
 * batches, half epoch begins. Flows in: fast-check's choices; flows out: the records of each
 * partition, and the rows as of any position. A key has two spellings that differ in bytes and are
 * equal in Postgres, so a row may move from one partition to another.
 */
import fc from 'fast-check';
import { type EpochLsn, isCovered, type Position } from '../../src/change/position.ts';
import type { StreamRecord } from '../../src/topic/records/stream-record.ts';
import { place, SketchedTopic, shapeOf } from '../support/builders.ts';

interface Op {
  readonly kind: 'write' | 'delete' | 'truncate' | 'relation';
  readonly table: number;
  readonly key: number;
  readonly upper: boolean;
}

interface SourceTransaction {
  /** WAL of others before the commit record; 0 lets it start where the one before ended. */
  readonly gap: number;
  readonly ops: readonly Op[];
}

interface Step {
  readonly transactions: readonly SourceTransaction[];
  /** Null for a whole batch; else the batch is torn, and an epoch begins. */
  readonly torn: {
    readonly point: number;
    readonly halves: readonly number[];
    readonly startLsn: number;
  } | null;
}

export interface AlignHistory {
  readonly partitions: readonly (readonly StreamRecord[])[];
  /** Content of whole batches. */
  readonly counted: readonly StreamRecord[];
  /** Where whole transactions commit, in order. */
  readonly commits: readonly Position[];
  /** The rows as of a position, `table key=value`. */
  readonly rowsAt: (at: EpochLsn) => readonly string[];
  readonly end: EpochLsn;
}

/** By table and key in lower case: the spelling, and what was written last. */
export type Rows = ReadonlyMap<string, { readonly key: string; readonly value: string }>;

export const firstLsn = 10;
const tables = ['public.t', 'public.u'];
const keys = ['a', 'b', 'c'];

const anyOp: fc.Arbitrary<Op> = fc.record({
  kind: fc.constantFrom(
    'write',
    'write',
    'write',
    'write',
    'delete',
    'delete',
    'truncate',
    'relation',
  ),
  table: fc.nat({ max: tables.length - 1 }),
  key: fc.nat({ max: keys.length - 1 }),
  upper: fc.boolean(),
});

const anyTransactions = fc.array(
  fc.record({ gap: fc.nat({ max: 2 }), ops: fc.array(anyOp, { maxLength: 4 }) }),
  { maxLength: 4 },
);

const anyTear = fc.record({
  point: fc.nat({ max: 7 }),
  halves: fc.array(fc.nat({ max: 7 }), { maxLength: 2 }),
  startLsn: fc.nat({ max: 60 }),
});

const anyStep: fc.Arbitrary<Step> = fc.record({
  transactions: anyTransactions,
  torn: fc.option(anyTear, { freq: 3 }),
});

export function anyAlignHistory(partitions: number): fc.Arbitrary<AlignHistory> {
  return fc.array(anyStep, { maxLength: 8 }).map((steps) => {
    const writer = new HistoryWriter(partitions);
    for (const step of steps) writer.step(step);
    return writer.history();
  });
}

export function showRows(rows: Rows): readonly string[] {
  return [...rows].map(([id, { key, value }]) => `${id} ${key}=${value}`).sort();
}

class HistoryWriter {
  readonly #topic: SketchedTopic;
  readonly #whole: { readonly position: Position; readonly rows: Rows }[] = [];
  readonly #counted: StreamRecord[] = [];
  #written = 0;

  constructor(partitions: number) {
    this.#topic = new SketchedTopic(partitions, firstLsn);
  }

  history(): AlignHistory {
    const whole = this.#whole;
    return {
      partitions: this.#topic.partitions,
      counted: this.#counted,
      commits: whole.map(({ position }) => position),
      rowsAt: (at) => {
        return showRows(
          whole.findLast(({ position }) => isCovered(position, at))?.rows ?? new Map(),
        );
      },
      end: this.#topic.checkpoint.at,
    };
  }

  step({ transactions, torn }: Step): void {
    const topic = this.#topic;
    const { partitions } = topic;
    const before = partitions.map(({ length }) => length);
    const kept = this.#whole.length;
    let end = Number(topic.checkpoint.at.lsn);
    for (const { gap, ops } of transactions) {
      const commit = end + gap;
      const rows = this.#transaction(commit, ops);
      this.#whole.push({ position: place(topic.epoch, commit), rows });
      end = commit + 1;
    }
    // No point without WAL behind the checkpoint.
    end = Math.max(end, Number(topic.checkpoint.at.lsn) + 1);
    if (torn === null) {
      const contents = partitions.map((records, i) => records.slice(before[i]));
      this.#counted.push(...contents.flat());
      topic.point(end);
      return;
    }
    // The next leader goes on from the base: what was torn never happened.
    this.#whole.length = kept;
    const some = this.#some(torn.point);
    if (some.length > 0) topic.point(end, {}, some);
    for (const half of torn.halves) {
      topic.begin(topic.epoch + 1, torn.startLsn, {}, this.#some(half));
    }
    topic.begin(topic.epoch + 1, torn.startLsn);
  }

  /** A set of partitions, never all. */
  #some(bits: number): number[] {
    const chosen = this.#topic.partitions.map((_, i) => i).filter((i) => (bits & (1 << i)) !== 0);
    return chosen.length === this.#topic.partitions.length ? chosen.slice(1) : chosen;
  }

  #transaction(commit: number, ops: readonly Op[]): Rows {
    const rows = new Map(this.#whole[this.#whole.length - 1]?.rows);
    let ordinal = 0;
    const put = (table: string, key: string, value: string | null): void => {
      const partition = key.charCodeAt(0) % this.#topic.partitions.length;
      this.#topic.put(partition, commit, ordinal, { kind: 'row', relationId: table, key, value });
      ordinal += 1;
    };
    for (const op of ops) {
      const table = tables[op.table] ?? '';
      const key = keys[op.key] ?? '';
      const id = `${table} ${key}`;
      const old = rows.get(id);
      if (op.kind === 'relation') {
        const relation = shapeOf(table, 'id text', 'v text');
        this.#topic.everywhere(commit, ordinal, { kind: 'relation', relation });
        ordinal += 1;
      } else if (op.kind === 'truncate') {
        this.#topic.everywhere(commit, ordinal, { kind: 'truncate', relationId: table });
        ordinal += 1;
        for (const each of [...rows.keys()]) if (each.startsWith(`${table} `)) rows.delete(each);
      } else if (op.kind === 'delete') {
        if (old === undefined) continue;
        put(table, old.key, null);
        rows.delete(id);
      } else {
        const spelled = op.upper ? key.toUpperCase() : key;
        // As the leader does with a changed key: a tombstone, then the row.
        if (old !== undefined && old.key !== spelled) put(table, old.key, null);
        this.#written += 1;
        put(table, spelled, `${this.#written}`);
        rows.set(id, { key: spelled, value: `${this.#written}` });
      }
    }
    return rows;
  }
}
