/**
 * Keys that are equal and spelled differently: a tombstone deletes whatever row has an equal key,
 * so it is published only where there can be none, or together with that row. The other rules of
 * reselect are in test/model/reselect.test.ts.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { hasOneSpelling, type KeyedTable } from '../../src/catalog/key-lookup.ts';
import type { RowChange, RowKey } from '../../src/change/change.ts';
import { Reselect, type RoundTable } from '../../src/leader/backfill/reselect.ts';
import type { ReadRow } from '../../src/leader/backfill/row-overlay.ts';
import { parseSnapshot, sees } from '../../src/leader/backfill/snapshot.ts';
import { at, place, shapeOf } from '../support/builders.ts';

const shape = shapeOf('public.price', 'id numeric', 'body text');
const since = { at: at(1, 10), nextOffsets: [1n] };
const manySpellings: RoundTable = { shape, hasOneSpelling: false };
const oneSpelling: RoundTable = { shape, hasOneSpelling: true };
const all = parseSnapshot('100:100:');

function keyOf(text: string): RowKey {
  return { relationId: shape.id, identity: [text] };
}

function wanting(...texts: readonly string[]): Reselect {
  const reselect = new Reselect(null);
  reselect.want(texts.map(keyOf), since, 0);
  reselect.setHorizon(texts.map(keyOf), 50n, reselect.resnapshots);
  return reselect;
}

function rowAt(text: string): ReadRow {
  return { identity: [text], values: [text, 'body'] };
}

function read(
  reselect: Reselect,
  table: RoundTable,
  rows: Record<string, ReadRow | null>,
  meanwhile: () => void = () => undefined,
): string[] {
  const keys = Object.keys(rows).map(keyOf);
  reselect.begin('id', table, keys);
  const found = Object.entries(rows).map(([text, row]) => ({ key: keyOf(text), row }));
  reselect.read(all, found);
  meanwhile();
  return reselect.take('id', 0).map(({ op, identity }) => `${op} ${identity}`);
}

function made(text: string): RowChange {
  const values = [text, 'body'];
  const head = { kind: 'row', relation: shape, unchanged: [], was: null } as const;
  return { ...head, op: 'c', identity: [text], values };
}

test('a key without a row gets a tombstone', () => {
  assert.equal(read(wanting('7'), manySpellings, { 7: null }), ['d 7']);
});

test('no tombstone while a key was added that may be equal to it', () => {
  const reselect = wanting('7');
  const make = (): void => reselect.row(made('7.0'), 99, since, place(1, 20));
  assert.equal(read(reselect, manySpellings, { 7: null }, make), []);
  assert.equal(read(reselect, manySpellings, { 7: null }), ['d 7']);
  const unseen = wanting('7');
  unseen.row(made('7.0'), 100, since, place(1, 20));
  assert.equal(read(unseen, manySpellings, { 7: null }), []);
  const plain = wanting('7');
  plain.row(made('8'), 100, since, place(1, 20));
  assert.equal(read(plain, oneSpelling, { 7: null }), ['d 7']);
});

test('a key whose row is spelled differently is published together with that row', () => {
  const reselect = wanting('1.0');
  assert.equal(read(reselect, manySpellings, { '1.0': rowAt('1.00') }), []);
  const round = reselect.next(0);
  assert.equal('keys' in round && round.keys.map(({ identity }) => identity[0]), ['1.00']);
  reselect.setHorizon([keyOf('1.00')], 50n, reselect.resnapshots);
  const both = { '1.0': rowAt('1.00'), '1.00': rowAt('1.00') };
  assert.equal(read(reselect, manySpellings, both), ['d 1.0', 'r 1.00']);
  assert.is(reselect.unhealed, null);
});

test('the watermark of an abandoned read is ignored', () => {
  const reselect = wanting('7');
  reselect.begin('old', manySpellings, [keyOf('7')]);
  reselect.read(all, [{ key: keyOf('7'), row: rowAt('7') }]);
  reselect.abandon();
  assert.equal(reselect.take('old', 0), []);
  assert.equal(reselect.unhealed, since);
});

test('a row that is wanted again does not delay the request that was answered', () => {
  const reselect = new Reselect(null);
  const [asked] = reselect.want([keyOf('7')], since, 0);
  assert.ok(asked && reselect.isOpen(asked));
  reselect.row(made('7'), 60, since, place(1, 20));
  const partial = { ...made('7'), op: 'u' as const, unchanged: ['body'] };
  reselect.row(partial, 61, since, place(1, 30));
  assert.not(reselect.isOpen(asked));
  reselect.next(0);
  const again = reselect.next(1_000);
  assert.equal('keys' in again && again.keys.map(({ identity }) => identity[0]), ['7']);
});

test('a key that was requested and found too is wanted since the older checkpoint', () => {
  const old = { at: at(1, 5), nextOffsets: [0n] };
  const reselect = new Reselect(old);
  assert.equal(reselect.takeSearch(at(1, 100)), old);
  reselect.want([keyOf('7')], since, 0);
  reselect.found([keyOf('7')], true, 0);
  assert.equal(reselect.unhealed, old);
});

test('types whose equal values have one spelling are known', () => {
  const keyed = (type: string, collation: string | null): KeyedTable => ({
    ...{ relationId: 't', schema: 'public', name: 't', identity: [0] },
    columns: [{ id: 'k', name: 'k', type, input: 'cast' }],
    keys: [{ equal: '=', less: '<', greater: '>', collation }],
  });
  const standard = '"pg_catalog"."default"';
  for (const type of ['bigint', 'uuid', 'timestamp(3) with time zone', 'date', 'bytea']) {
    assert.ok(hasOneSpelling(keyed(type, null)), type);
  }
  assert.ok(hasOneSpelling(keyed('character varying(20)', standard)));
  for (const type of ['numeric', 'character(5)', '"public"."citext"', 'double precision']) {
    assert.not(hasOneSpelling(keyed(type, standard)), type);
  }
  assert.not(hasOneSpelling(keyed('text', '"public"."case_insensitive"')));
});

test('a snapshot sees transactions that had ended, in any cycle of ids', () => {
  const snapshot = parseSnapshot('4294967290:4294967300:4294967291,4294967299');
  const seen = [4_294_967_289, 4_294_967_290, 4_294_967_291, 0, 3, 4].map((xid) =>
    sees(snapshot, xid),
  );
  assert.equal(seen, [true, true, false, true, false, false]);
});

test('after a resnapshot request, pending keys need a snapshot that sees more', () => {
  const reselect = new Reselect(null);
  const head = { kind: 'row', op: 'u', relation: shape, was: null } as const;
  const partial: RowChange = { ...head, identity: ['1'], values: ['1', null], unchanged: ['body'] };
  reselect.row(partial, 20, since, place(1, 12));
  reselect.resnapshot('public.other');
  reselect.next(0);
  const open = (): unknown => {
    const round = reselect.next(5_000);
    return 'keys' in round ? round.keys.map(({ horizon }) => horizon) : round;
  };
  assert.equal(open(), [null]);
  reselect.resnapshot(shape.id);
  assert.equal(open(), ['unknown']);
  assert.equal(read(reselect, oneSpelling, { '1': null }), [], 'it may not have seen enough');
  reselect.setHorizon([keyOf('1')], 40n, reselect.resnapshots - 1);
  assert.equal(open(), ['unknown'], 'a horizon from before the resnapshot does not count');
  reselect.setHorizon([keyOf('1')], 50n, reselect.resnapshots);
  const deleted = read(reselect, oneSpelling, { '1': null });
  assert.equal(deleted, ['d 1'], 'the delete was not streamed');
  assert.is(reselect.unhealed, null);
});

test.run();
