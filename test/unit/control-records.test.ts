/**
 * The text of the control log: every record comes back as it went in, its key is its own, and what
 * this version does not know in full is refused instead of skipped.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { parseLsn } from '../../src/change/lsn.ts';
import {
  type ControlRecord,
  decodeControlRecord,
  encodeControlRecord,
} from '../../src/control/control-records.ts';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';

const time = '2026-03-01T10:00:00.000Z';
const at = { epoch: 3, lsn: parseLsn('16/B374D848') };

/** One of each kind, with its key; a kind that is missing here does not compile. */
const examples: { readonly [K in ControlRecord['kind']]: [string, ControlRecord & { kind: K }] } = {
  claim: ['claim/2/c2', { kind: 'claim', id: 'c2', epoch: 2, node: 'b', predecessor: 'c1', time }],
  release: ['release/c1/r1', { kind: 'release', claim: 'c1', request: 'r1', node: 'a', time }],
  abort: [
    'abort/c1/r1',
    { kind: 'abort', claim: 'c1', request: 'r1', node: 'a', reason: 'lock timeout', time },
  ],
  start: [
    'start/a',
    {
      kind: 'start',
      node: 'a',
      number: 7,
      time,
      database: {
        systemId: '7412000000000000001',
        oid: '16400',
        name: 'shop',
        address: 'a.example:5432',
        startedAt: '1763700000.123456',
      },
    },
  ],
  stream: [
    'stream/s1',
    {
      kind: 'stream',
      streamId: 's1',
      cluster: 'shop',
      partitions: 2,
      topic: { 'cleanup.policy': 'compact' },
      time,
    },
  ],
  point: [
    'point/before-x/3:16/B374D848',
    {
      kind: 'point',
      label: 'before-x',
      at,
      commitTimeMicros: 1_763_700_000_123_456n,
      offsets: [0n, 9_007_199_254_740_993n],
    },
  ],
  damage: [
    'damage/d1',
    { kind: 'damage', id: 'd1', epoch: 3, at, reason: 'too many', node: 'b', time },
  ],
  detach: ['detach/x1', { kind: 'detach', id: 'x1', node: 'b', at, time }],
  stop: [
    'stop/a',
    {
      ...{ kind: 'stop', node: 'a', time },
      error: { code: 'SCHEMA_CHANGED', message: 'a table', hint: 'undo it', exit: 4 },
    },
  ],
  repair: ['repair/d1', { kind: 'repair', damage: 'd1', by: 'op@host', reason: 'x', time }],
  'compaction-lag': ['compaction-lag/3600000', { kind: 'compaction-lag', ms: 3_600_000 }],
  durability: [
    'durability/x1',
    { kind: 'durability', id: 'x1', epoch: 1, node: 'a', durability: 'apply:2', time },
  ],
  request: [
    'request/r1/start',
    { kind: 'request', id: 'r1', step: 'start', verb: 'x', node: 'b', args: { n: [1] }, time },
  ],
  answer: [
    'answer/r1/drain',
    { kind: 'answer', request: 'r1', step: 'drain', node: 'b', result: 1, error: null, time },
  ],
  nonce: ['nonce/a', { kind: 'nonce', node: 'a', value: 'i/1' }],
};

function codeOf(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    if (error instanceof UnderstudyError) return error.code;
    throw error;
  }
  return 'none';
}

for (const [kind, [key, record]] of Object.entries(examples)) {
  test(`${kind} comes back as it was, under its own key`, () => {
    const text = encodeControlRecord(record);
    assert.is(text.key, key);
    assert.equal(decodeControlRecord(text.key, text.value, 0n), record);
    const { format, kind: written } = JSON.parse(text.value);
    assert.equal([format, written], [1, kind]);
  });

  test(`${kind} with a member more, or one less, is refused`, () => {
    const text = encodeControlRecord(record);
    const fields = JSON.parse(text.value);
    const decode = (value: object) =>
      codeOf(() => decodeControlRecord(text.key, JSON.stringify(value), 0n));
    assert.is(decode({ ...fields, more: 1 }), 'MESSAGE_UNKNOWN');
    // Agents of before did not record the database of a start.
    for (const name of Object.keys(fields).filter((one) => one !== 'database')) {
      const { [name]: _, ...less } = fields;
      assert.is(decode(less), 'MESSAGE_UNKNOWN', name);
    }
  });
}

test('a nonce of a command has no node', () => {
  const record = { kind: 'nonce', node: null, value: 'i/1' } as const;
  const { key, value } = encodeControlRecord(record);
  assert.is(key, 'nonce');
  assert.equal(decodeControlRecord(key, value, 0n), record);
});

test('a newer format is refused before anything else is checked', () => {
  const value = JSON.stringify({ format: 2, kind: 'council', members: [] });
  assert.is(
    codeOf(() => decodeControlRecord('council/1', value, 0n)),
    'FORMAT_TOO_NEW',
  );
});

test('an unknown kind, other text, a tombstone and a foreign key stop too', () => {
  const [key, record] = examples.claim;
  const { value } = encodeControlRecord(record);
  const unknown: [string, string | null][] = [
    ['council/1', JSON.stringify({ format: 1, kind: 'council' })],
    ['claim/2/c2', 'hello'],
    ['claim/2/c2', '[]'],
    ['claim/2/c2', 'null'],
    [key, null],
    ['claim/3/c2', value],
  ];
  for (const [foreign, text] of unknown) {
    assert.is(
      codeOf(() => decodeControlRecord(foreign, text, 7n)),
      'MESSAGE_UNKNOWN',
      foreign,
    );
  }
});

test('the error names the record and is one line', () => {
  assert.throws(
    () => decodeControlRecord('claim/1/x', '{"format":1,"kind":"claim","epoch":0}', 12n),
    (error: Error) =>
      /^record 12 .*claim\/1\/x/.test(error.message) && !error.message.includes('\n'),
  );
});

test('a label that no command would accept is not written either', () => {
  const [, point] = examples.point;
  assert.throws(() => encodeControlRecord({ ...point, label: 'No/Label' }));
});

test.run();
