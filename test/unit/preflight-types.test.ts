/**
 * Types of the catalog that mean something else on a follower are found before any row comes; types
 * that no replicated column has are ignored.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { TableShape } from '../../src/catalog/table.ts';
import type { Finding } from '../../src/fleet/preflight/finding.ts';
import { judgeTypes, type TypesByName } from '../../src/fleet/preflight/judge-types.ts';

function tableOf(...types: readonly string[]): TableShape {
  const columns = types.map((type, at) => {
    const plain = {
      typeOid: 1,
      typeModifier: -1,
      notNull: false,
      generated: 'no',
      identity: 'no',
    } as const;
    return { attnum: at + 1, name: `c${at}`, type, ...plain };
  });
  return {
    ...{ oid: 1, schema: 'public', name: 'orders', kind: 'ordinary', persistence: 'permanent' },
    ...{ isPartition: false, parentOid: null, columns, uniqueIndexes: [] },
    ...{ replicaIdentity: 'default', identityAttnums: [1] },
  } as const;
}

const types: TypesByName = {
  'public.pair': { kind: 'composite', parts: ['x text', 'y text'], types: ['text', 'text'] },
  'public.mood': { kind: 'enum', parts: ['sad', 'ok'], types: [] },
  'public.list': { kind: 'domain', parts: ['public.pair[]'], types: ['public.pair[]'] },
  'public.self': { kind: 'composite', parts: ['s public.self[]'], types: ['public.self[]'] },
};

function judged(columns: readonly string[], changes: TypesByName): Finding[] {
  const follower = { name: 'b', types: { ...types, ...changes } };
  return judgeTypes({ types }, follower, [tableOf(...columns)]);
}

test('attributes in another order are found, also within arrays and domains', () => {
  const turned = { ...types['public.pair'], parts: ['y text', 'x text'] } as never;
  const [finding, ...more] = judged(['bigint', 'public.list'], { 'public.pair': turned });
  assert.equal(more, []);
  assert.is(finding?.code, 'SCHEMA_DIFFERS');
  assert.match(
    finding?.message ?? '',
    /public\.pair, which public\.orders has, .* on node b: it is \(y text, x text\) instead/,
  );
});

test('an enum may have more labels on a follower, in any order, and none less', () => {
  const labels = (...parts: string[]): TypesByName => {
    return { 'public.mood': { kind: 'enum', parts, types: [] } };
  };
  assert.equal(judged(['public.mood[]'], labels('more', 'ok', 'sad')), []);
  const [finding] = judged(['public.mood[]'], labels('sad'));
  assert.match(finding?.message ?? '', /it lacks the label "ok"/);
});

test('equal types, types of no column and missing types are no finding', () => {
  assert.equal(judged(['public.list', 'public.mood', 'public.self'], {}), []);
  assert.equal(judged(['text'], { 'public.mood': { kind: 'enum', parts: [], types: [] } }), []);
  assert.equal(judgeTypes({ types }, { name: 'b', types: {} }, [tableOf('public.list')]), []);
});

test.run();
