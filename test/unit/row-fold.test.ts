/**
 * Partial rows against a model of one table: whatever the records say one after the other, in
 * whatever order partitions are folded, the fold says too.
 */
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { PgText } from '../../src/change/change.ts';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import {
  type Layer,
  layerOf,
  missingColumns,
  wholeRow,
} from '../../src/follower/apply/partial-rows.ts';
import { RowFold } from '../../src/follower/apply/row-fold.ts';
import type { TableRows } from '../../src/follower/apply/stages.ts';
import type { RowRecord } from '../../src/topic/records/stream-record.ts';
import { place } from '../support/builders.ts';

const relationId = 'public.t';
const columns = ['small', 'large', 'huge'] as const;
const partitions = 3;

/** A value is three texts; the large ones may be left out of an update. */
type Row = readonly [string, string, string];
type Table = Map<string, Row>;

function recordOf(
  ordinal: number,
  key: string,
  row: readonly (string | null)[] | null,
  was: string | null = null,
): RowRecord {
  const unchanged = row === null ? [] : columns.filter((_, i) => row[i] === null);
  return {
    kind: 'row',
    partition: key.charCodeAt(0) % partitions,
    offset: BigInt(ordinal),
    timestampMs: 0,
    position: place(1, 10, ordinal),
    commitTimeMicros: 0n,
    op: row === null ? 'd' : 'u',
    relationId,
    identity: [key],
    key: Buffer.from(key),
    value: row === null ? null : Buffer.from(JSON.stringify(row)),
    was: was === null ? null : [was],
    unchanged: unchanged.length === 0 ? null : unchanged,
  };
}

function layer({
  value,
  unchanged,
}: {
  value: Buffer;
  unchanged: readonly string[] | null;
}): Layer {
  return layerOf(columns, JSON.parse(value.toString()) as PgText[], unchanged);
}

/** As the applier does: bases are read before anything is written, deletes come before upserts. */
function apply(table: Table, rows: TableRows): Table {
  const result = new Map(table);
  for (const { identity } of rows.deletes) result.delete(identity[0] ?? '');
  for (const { identity, value } of rows.upserts) {
    result.set(identity[0] ?? '', JSON.parse(value.toString()) as Row);
  }
  for (const { layers, base } of rows.partials) {
    const held = base === null ? undefined : table.get(base[0] ?? '');
    const below = held === undefined ? null : layerOf(columns, held, null);
    const whole = wholeRow(columns, layers.map(layer), below);
    assert.ok(whole, 'what completes a partial row is there');
    result.set(layers[0]?.identity[0] ?? '', whole as unknown as Row);
  }
  return result;
}

interface Step {
  readonly kind: 'insert' | 'update' | 'move' | 'delete';
  readonly from: string;
  readonly to: string;
  readonly leavesOut: readonly [boolean, boolean];
}

const anyKey = fc.constantFrom('a', 'b', 'c', 'd', 'e');
const anyStep: fc.Arbitrary<Step> = fc.record({
  kind: fc.constantFrom('insert', 'update', 'update', 'move', 'move', 'delete'),
  from: anyKey,
  to: anyKey,
  leavesOut: fc.tuple(fc.boolean(), fc.boolean()),
});

/** What Postgres would do and send; steps that it would refuse are left out. */
function play(table: Table, steps: readonly Step[]): { after: Table; records: RowRecord[] } {
  const after = new Map(table);
  const records: RowRecord[] = [];
  for (const [n, { kind, from, to, leavesOut }] of steps.entries()) {
    const held = after.get(from);
    if (kind === 'insert' && held === undefined) {
      const row: Row = [`${n}`, `large ${n}`, `huge ${n}`];
      after.set(from, row);
      records.push(recordOf(records.length, from, row));
    } else if (kind === 'delete' && held !== undefined) {
      after.delete(from);
      records.push(recordOf(records.length, from, null));
    } else if (held !== undefined && (kind === 'update' || (kind === 'move' && !after.has(to)))) {
      const [large, huge] = leavesOut;
      const row: Row = [`${n}`, large ? held[1] : `large ${n}`, huge ? held[2] : `huge ${n}`];
      const sent = [row[0], large ? null : row[1], huge ? null : row[2]];
      const isMove = kind === 'move';
      if (isMove) {
        after.delete(from);
        records.push(recordOf(records.length, from, null));
      }
      after.set(isMove ? to : from, row);
      records.push(recordOf(records.length, isMove ? to : from, sent, isMove ? from : null));
    }
  }
  return { after, records };
}

function folded(records: readonly RowRecord[]): readonly TableRows[] {
  const moves = records.some(({ unchanged, was }) => unchanged !== null && was !== null);
  const fold = new RowFold(moves);
  // One partition after the other, as they are read.
  for (let partition = 0; partition < partitions; partition += 1) {
    for (const record of records) if (record.partition === partition) fold.add(record);
  }
  return fold.tables();
}

test('any history of partial updates, key changes and deletes ends in the same rows', () => {
  const start: Table = new Map([
    ['a', ['0', 'large a', 'huge a']],
    ['b', ['0', 'large b', 'huge b']],
  ]);
  fc.assert(
    fc.property(fc.array(anyStep, { maxLength: 25 }), (steps) => {
      const { after, records } = play(start, steps);
      const [rows] = folded(records);
      const result = rows === undefined ? start : apply(start, rows);
      assert.equal([...result].sort(), [...after].sort());
    }),
    { numRuns: 3_000 },
  );
});

test('a partial row that follows a delete of its key is damage', () => {
  const records = [recordOf(0, 'a', null), recordOf(1, 'a', ['1', null, '2'])];
  assert.throws(
    () => folded(records),
    (error: unknown) => error instanceof UnderstudyError && error.code === 'DAMAGED',
  );
});

test('a partial row whose base has no value either is not whole', () => {
  const top = layerOf(columns, ['1', null, '2'], ['large']);
  assert.equal(missingColumns(columns, [top]), ['large']);
  assert.is(wholeRow(columns, [top], null), null);
  const base = layerOf(columns, ['0', null, '0'], null);
  assert.equal(wholeRow(columns, [top], base), ['1', null, '2'], 'NULL is a value');
});

test.run();
