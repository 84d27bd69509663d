/**
 * What a rebuild decides without servers: names of databases, their settings as SQL, and what
 * `status` says of a node meanwhile.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { besideName, settingText } from '../../src/fleet/provision/beside-database.ts';
import { rebuildText } from '../../src/fleet/status/progress-text.ts';
import type { PendingRebuild } from '../../src/follower/state/rebuild-state.ts';
import { facts, follower, nodesOf } from '../support/fleet-facts.ts';

test('a database beside has a name of its own that Postgres does not cut', () => {
  assert.is(besideName('shop', 'rebuild'), 'shop_understudy_rebuild');
  assert.is(besideName('shop', 'old'), 'shop_understudy_old');
  const long = 'x'.repeat(60);
  const names = [
    besideName(long, 'rebuild'),
    besideName(long, 'old'),
    besideName('ü'.repeat(30), 'old'),
  ];
  assert.is(new Set(names).size, 3);
  assert.ok(names.every((name) => Buffer.byteLength(name) <= 63));
  assert.is.not(besideName(`${long}a`, 'old'), besideName(`${long}b`, 'old'));
});

test('settings are written so that they mean the same', () => {
  assert.is(settingText('work_mem=5MB'), `"work_mem" = '5MB'`);
  assert.is(settingText(`app.note=it's = so`), `"app"."note" = 'it''s = so'`);
  const path = 'search_path="$user", public, "x,""y"';
  assert.is(settingText(path), `"search_path" = '$user', 'public', 'x,"y'`);
  assert.is(settingText('search_path='), `"search_path" = ''`);
  assert.is(settingText('search_path=""'), `"search_path" = ''`);
});

const mark: PendingRebuild = {
  way: 'swap',
  reason: 'it was away',
  beside: '20000',
  progress: { phase: 'reading', percent: 40, rows: 12_345 },
};

test('a node that is being rebuilt is neither exact nor promotable, and reports progress', () => {
  const [, b] = nodesOf(facts({ b: follower(1000, { rebuild: mark }) }));
  assert.equal([b.state, b.exact, b.promotable], ['rebuilding', false, false]);
  assert.match(b.why.join(), '40 % read, 12,345 rows; reason: it was away');
  const [, stopped] = nodesOf(facts({ b: follower(1000, { rebuild: mark, agentRuns: false }) }));
  assert.equal([stopped.state, stopped.promotable], ['stopped', false]);
  assert.match(stopped.why.join(), 'it is being rebuilt');
});

test('each phase has its words', () => {
  const said = (progress: PendingRebuild['progress']): string => rebuildText({ ...mark, progress });
  assert.match(said(null), 'about to begin');
  assert.match(said({ phase: 'following', percent: 100, rows: 0 }), 'to its end');
  assert.match(said({ phase: 'schema', percent: 50, rows: 0 }), '50 % of the rest of its schema');
  assert.match(said({ phase: 'swap', percent: 100, rows: 0 }), 'replacing the old one');
  assert.match(rebuildText({ ...mark, way: 'in-place' }), 'in its own tables: it was away');
});

test.run();
