/**
 * The fold over the whole control log: the effect of each kind of record, and that neither portions
 * nor compaction nor the moment of reading makes a difference.
 */
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { toLsn } from '../../src/change/lsn.ts';
import { nextClaim, ownerOf } from '../../src/control/claim.ts';
import { isReported } from '../../src/control/control-log.ts';
import { type ControlRecord, controlKey } from '../../src/control/control-records.ts';
import {
  type ControlState,
  emptyControlState,
  foldControl,
} from '../../src/control/control-state.ts';

const time = '2026-03-01T10:00:00.000Z';

function fold(...records: readonly ControlRecord[]): ControlState {
  return foldControl(emptyControlState, records);
}

function point(label: string, lsn: bigint): ControlRecord {
  return {
    kind: 'point',
    label,
    at: { epoch: 1, lsn: toLsn(lsn) },
    commitTimeMicros: 1n,
    offsets: [lsn],
  };
}

function damage(id: string): ControlRecord {
  return { kind: 'damage', id, epoch: 1, at: null, reason: 'x', node: 'a', time };
}

function durability(id: string, epoch: number, mode: string): ControlRecord {
  return { kind: 'durability', id, epoch, node: 'a', durability: mode, time };
}

test('the first record of a label counts, and both have keys of their own', () => {
  const [one, two] = [point('x', 1n), point('x', 2n)];
  assert.is(fold(one, two).labels.get('x'), one);
  assert.is.not(controlKey(one), controlKey(two));
});

test('a log that cannot be read is reported in growing intervals', () => {
  const reported = Array.from({ length: 200 }, (_, at) => at + 1).filter(isReported);
  assert.equal(reported, [1, 2, 4, 8, 16, 32, 64, 128, 192]);
});

test('the first stream counts: two inits at once make one cluster', () => {
  const stream = { kind: 'stream', cluster: 'shop', partitions: 1, topic: {}, time } as const;
  const state = fold({ ...stream, streamId: 's1' }, { ...stream, streamId: 's2' });
  assert.is(state.stream?.streamId, 's1');
});

test('damage is open until it is repaired', () => {
  const repair: ControlRecord = { kind: 'repair', damage: 'd1', by: 'op@host', reason: 'x', time };
  const state = fold(damage('d1'), damage('d2'), repair);
  assert.equal([...state.openDamage.keys()], ['d2']);
});

test('the last stop of an agent counts, until the node works again', () => {
  const error = { code: 'SCHEMA_CHANGED', message: 'a table', hint: 'undo it', exit: 4 };
  const stop: ControlRecord = { kind: 'stop', node: 'a', error, time };
  assert.equal([...fold(stop, { ...stop, node: 'b' }).stops.keys()], ['a', 'b']);
  assert.is(fold(stop, { ...stop, error: null }).stops.size, 0);
});

test('the smallest compaction lag ever set is kept', () => {
  const lags = [5, 3, 9].map((ms): ControlRecord => ({ kind: 'compaction-lag', ms }));
  assert.is(fold(...lags).smallestCompactionLagMs, 3);
});

test('a durability record of a deposed leader is ignored', () => {
  const claims: ControlRecord[] = [
    { kind: 'claim', id: 'a1', epoch: 1, node: 'a', predecessor: null, time },
    { kind: 'claim', id: 'b1', epoch: 2, node: 'b', predecessor: 'a1', time },
  ];
  const state = fold(...claims, durability('x', 2, 'log'), durability('y', 1, 'async'));
  assert.is(state.durability?.durability, 'log');
});

test('the start number of a node is its last one', () => {
  const state = fold(
    { kind: 'start', node: 'a', number: 1, time },
    { kind: 'start', node: 'b', number: 5, time },
    { kind: 'start', node: 'a', number: 2, time },
  );
  assert.equal(
    [...state.startNumbers],
    [
      ['a', 2],
      ['b', 5],
    ],
  );
});

test('a state that was returned never changes', () => {
  const before = fold(point('x', 1n), damage('d1'));
  const copy = structuredClone(before);
  foldControl(before, [point('y', 2n), damage('d2'), { kind: 'compaction-lag', ms: 1 }]);
  assert.equal(before, copy);
});

/** Writes one more record, sometimes a sensible one, sometimes one that must be ignored. */
function another(log: readonly ControlRecord[], choice: number): ControlRecord {
  const state = fold(...log);
  const id = `i${log.length}`;
  const node = 'abc'.charAt(choice % 3);
  const claim = ownerOf(state)?.claimId ?? 'none';
  const request = `r${choice % 2}`;
  const records: ControlRecord[] = [
    { kind: 'claim', id, time, ...nextClaim(state, node) },
    { kind: 'claim', id, time, ...nextClaim(fold(...log.slice(0, log.length / 2)), node) },
    { kind: 'release', claim, request, node: ownerOf(state)?.node ?? node, time },
    { kind: 'abort', claim, request, node: ownerOf(state)?.node ?? node, reason: 'x', time },
    { kind: 'start', node, number: log.length + 1, time },
    { kind: 'nonce', node, value: id },
    {
      ...{ kind: 'stop', node, time },
      error: choice % 2 === 0 ? null : { code: 'X', message: id, hint: 'x', exit: 4 },
    },
    { kind: 'stream', streamId: id, cluster: 'shop', partitions: 1, topic: {}, time },
    point('xyz'.charAt(choice % 3), BigInt(log.length)),
    damage(id),
    { kind: 'repair', damage: `i${choice % (log.length + 1)}`, by: node, reason: 'x', time },
    { kind: 'compaction-lag', ms: choice % 7 },
    durability(id, (choice % 4) + 1, 'log'),
    { kind: 'request', id, step: 'start', verb: 'x', node, args: {}, time },
    { kind: 'answer', request, step: node, node, result: choice, error: null, time },
  ];
  return records[choice % records.length] as ControlRecord;
}

/** What Kafka keeps: the last record of each key, at its offset. A tail is never compacted. */
function compact(log: readonly ControlRecord[], upTo: number): ControlRecord[] {
  const lastOf = new Map(log.slice(0, upTo).map((record, at) => [controlKey(record), at]));
  return log.filter((record, at) => at >= upTo || lastOf.get(controlKey(record)) === at);
}

/** A release and an abort of one switchover are appended once each: keys are unique. */
function withUniqueKeys(log: readonly ControlRecord[]): ControlRecord[] {
  const keys = new Set<string>();
  return log.filter((record) => {
    const key = controlKey(record);
    const isAgain = keys.has(key) && (record.kind === 'release' || record.kind === 'abort');
    keys.add(key);
    return !isAgain;
  });
}

function writeLog(choices: readonly number[]): ControlRecord[] {
  const log: ControlRecord[] = [];
  for (const choice of choices) log.push(another(log, choice));
  return withUniqueKeys(log);
}

const logs = fc.array(fc.nat(), { maxLength: 40 }).map(writeLog);

/** Maps and sets are compared by what they hold. */
function shown(state: ControlState): string {
  return JSON.stringify(state, (_, value) => {
    if (typeof value === 'bigint') return String(value);
    return value instanceof Map || value instanceof Set ? [...value].sort() : value;
  });
}

test('compaction changes no state', () => {
  fc.assert(
    fc.property(logs, fc.nat(), (log, cut) => {
      const compacted = compact(log, cut % (log.length + 1));
      assert.is(shown(fold(...compacted)), shown(fold(...log)));
    }),
    { numRuns: 1_000 },
  );
});

test('the size of the portions changes nothing', () => {
  fc.assert(
    fc.property(logs, fc.nat(), (log, cut) => {
      const at = cut % (log.length + 1);
      const inTwo = foldControl(fold(...log.slice(0, at)), log.slice(at));
      assert.is(shown(inTwo), shown(fold(...log)));
    }),
  );
});

test('why the producer must not repeat a claim: compaction would make the loser the owner', () => {
  const claims = ['a', 'b', 'a'].map(
    (node): ControlRecord => ({ kind: 'claim', id: node, epoch: 1, node, predecessor: null, time }),
  );
  assert.is(ownerOf(fold(...claims))?.node, 'a');
  assert.is(ownerOf(fold(...compact(claims, claims.length)))?.node, 'b');
});

test.run();
