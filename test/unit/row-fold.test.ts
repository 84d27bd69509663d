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
import { rowActions } from '../../src/follower/apply/row-actions.ts';
import { RowFold } from '../../src/follower/apply/row-fold.ts';
import type { TableRows, WholeRow } from '../../src/follower/apply/stages.ts';
import type { RowRecord } from '../../src/topic/records/stream-record.ts';
import { applyRows, type ModelStore } from '../model/model-tables.ts';
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

function valuesOf(value: Buffer): PgText[] {
  return JSON.parse(value.toString()) as PgText[];
}

/** As the applier does it: its own actions, on a table in which `a` and `A` are equal keys. */
function apply(table: Table, rows: TableRows, heldMax?: number, mayLack = false): Table {
  const result = new Map(table);
  const store: ModelStore = {
    values: ({ identity, value }) => [identity[0] ?? '', ...valuesOf(value)],
    read: (_, key) => {
      const held = heldKey(result, key);
      return held === null ? null : [held, ...(result.get(held) ?? [])];
    },
    delete: (_, key) => result.delete(heldKey(result, key) ?? ''),
    write: (_, [key, ...row]) => {
      assert.is(heldKey(result, key ?? '') ?? key, key, 'an upsert would keep the other spelling');
      result.set(key ?? '', row as unknown as Row);
    },
  };
  applyRows(store, {
    ...{ tables: [rows], columns: ['key', ...columns], mayLackBase: () => mayLack },
    ...(heldMax !== undefined && { heldMax }),
  });
  return result;
}

/** The key of the row that Postgres finds under this one. */
function heldKey(table: Table, key: string): string | null {
  return [...table.keys()].find((one) => one.toLowerCase() === key.toLowerCase()) ?? null;
}

interface Step {
  readonly kind: 'insert' | 'update' | 'move' | 'delete';
  readonly from: string;
  readonly to: string;
  readonly leavesOut: readonly [boolean, boolean];
}

const anyKey = fc.constantFrom('a', 'b', 'B', 'c', 'C');
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
  for (const [n, step] of steps.entries()) {
    const { kind, from, to, leavesOut } = step;
    const held = after.get(from);
    if (kind === 'insert' && heldKey(after, from) === null) {
      const row: Row = [`${n}`, `large ${n}`, `huge ${n}`];
      after.set(from, row);
      records.push(recordOf(records.length, from, row));
    } else if (kind === 'delete' && held !== undefined) {
      after.delete(from);
      records.push(recordOf(records.length, from, null));
    } else if (held !== undefined && (kind === 'update' || mayMove(after, step))) {
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

function mayMove(table: Table, { from, to }: Step): boolean {
  return from !== to && (heldKey(table, to) ?? from) === from;
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
    fc.property(fc.array(anyStep, { maxLength: 25 }), fc.nat(2), (steps, heldMax) => {
      const { after, records } = play(start, steps);
      const [rows] = folded(records);
      const result = rows === undefined ? start : apply(start, rows, heldMax);
      assert.equal([...result].sort(), [...after].sort());
    }),
    { numRuns: 3_000 },
  );
});

/** How many keys each question about bases has. */
function keysOfBases(records: readonly RowRecord[]): Record<'keep' | 'kept' | 'read', number[]> {
  const sizes = { keep: [] as number[], kept: [] as number[], read: [] as number[] };
  const base = layerOf(['large'], ['base'], null);
  const actions = startOf(records, true);
  for (let next = actions.next([]); next.done !== true; ) {
    const action = next.value;
    const count = 'count' in action ? action.count : 'keys' in action ? action.keys.length : 0;
    if (action.kind === 'keep' || action.kind === 'kept' || action.kind === 'read') {
      sizes[action.kind].push(count);
    }
    next = actions.next(new Array(count).fill(base));
  }
  return sizes;
}

function startOf(records: readonly RowRecord[], oneSpelling: boolean) {
  const [rows] = folded(records);
  const names = ['key', ...columns];
  const ids = names.map((id) => ({ id }));
  const table = { relationId, columns: ids, identity: [0], replaceOnly: false, oneSpelling };
  const layerOfRow = (_: unknown, { identity, value, unchanged }: WholeRow): Layer => {
    return layerOf(names, [identity[0] ?? '', ...valuesOf(value)], unchanged);
  };
  const steps = rows === undefined ? [] : [{ table, rows, mayLackBase: false }];
  return rowActions(steps, { replace: false, layer: layerOfRow });
}

/** The actions on a table that holds one row, under `a`. */
function actionsOf(records: readonly RowRecord[], oneSpelling: boolean): string[] {
  const actions = startOf(records, oneSpelling);
  const taken: string[] = [];
  for (let next = actions.next([]); next.done !== true; ) {
    const action = next.value;
    taken.push(action.kind);
    const isHeld = (key: readonly string[]): boolean => key[0]?.toLowerCase() === 'a';
    const base = layerOf(['large'], ['base'], null);
    const removes = action.kind === 'removed' && action.by.some(({ identity }) => isHeld(identity));
    if (action.kind === 'read') next = actions.next(action.keys.map(() => base));
    else if (removes) next = actions.next(action.keys.map((k) => (isHeld(k) ? base : null)));
    else next = actions.next([]);
  }
  return taken;
}

test('a base is read before the deletes where one of them removes it, else with the writes', () => {
  const stays = recordOf(0, 'a', ['1', null, '2']);
  const other = recordOf(1, 'b', null);
  const late = ['delete', 'upsert', 'read', 'complete', 'end'];
  assert.equal(actionsOf([stays], false), late, 'nothing is deleted');
  assert.equal(actionsOf([stays, other], true), late, 'equal keys have equal bytes');
  assert.equal(actionsOf([stays, other], false), ['removed', ...late]);
  const early = ['delete', 'upsert', 'complete', 'end'];
  const removed = [stays, recordOf(1, 'A', null)];
  assert.equal(actionsOf(removed, false), ['removed', 'read', ...early]);
  const moved = [recordOf(0, 'a', null), recordOf(1, 'b', ['1', null, '2'], 'a')];
  assert.equal(actionsOf(moved, true), ['read', ...early]);
});

test('of the bases that deletes remove, few are held: the database keeps the others', () => {
  const moves = Array.from({ length: 200 }, (_, i) => [
    recordOf(2 * i, `from ${i}`, null),
    recordOf(2 * i + 1, `to ${i}`, ['1', null, '2'], `from ${i}`),
  ]).flat();
  const sizes = keysOfBases(moves);
  assert.equal(sizes.keep, [200]);
  assert.equal(sizes.read, []);
  assert.equal(sizes.kept, [50, 50, 50, 50]);
  const few = keysOfBases(moves.slice(0, 100));
  assert.equal(few, { keep: [], kept: [], read: [50] });

  const start: Table = new Map(moves.map((_, i) => [`from ${i}`, ['0', `large ${i}`, 'huge']]));
  const [rows] = folded(moves);
  const after = apply(start, rows as TableRows);
  for (let i = 0; i < 200; i += 1) assert.equal(after.get(`to ${i}`), ['1', `large ${i}`, '2']);
});

test('a base that the table lacked is not the row that is written under its key', () => {
  const moved = recordOf(1, 'b', ['1', null, '2'], 'a');
  const records = [recordOf(0, 'a', null), moved, recordOf(2, 'a', ['3', 'of another', '4'])];
  const [rows] = folded(records);
  for (const heldMax of [0, 50]) {
    const after = apply(new Map(), rows as TableRows, heldMax, true);
    assert.equal([...after], [['a', ['3', 'of another', '4']]]);
  }
});

test('a partial row that follows a delete of its key is damage of the node', () => {
  const records = [recordOf(0, 'a', null), recordOf(1, 'a', ['1', null, '2'])];
  assert.throws(
    () => folded(records),
    (error: unknown) => error instanceof UnderstudyError && error.code === 'NODE_DAMAGED',
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
