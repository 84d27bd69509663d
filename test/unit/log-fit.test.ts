/**
 * A gap is damage, or the age of the node that meets it. How long it was away flows in, the error
 * to stop with is looked at.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { toLsn } from '../../src/change/lsn.ts';
import { GapError } from '../../src/errors/topic.ts';
import { noteCompactionLag } from '../../src/fleet/node/compaction-lag.ts';
import { judgeGap } from '../../src/follower/apply/log-fit.ts';
import { MemoryControlLog } from '../support/memory-control-log.ts';

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;

function judged(awayMs: number, lagMs: number | null): string {
  const gap = new GapError('a point is missing', { epoch: 1, lsn: toLsn(1n) });
  return judgeGap(gap, awayMs, lagMs).code;
}

test('a node that was away longer than each change is kept is stale', () => {
  assert.is(judged(25 * hourMs, dayMs), 'STALE');
});

test('a younger gap is damage, and so is one within a tenth of the limit', () => {
  assert.is(judged(hourMs, dayMs), 'DAMAGED');
  assert.is(judged(21 * hourMs, dayMs), 'DAMAGED');
  assert.is(judged(22 * hourMs, dayMs), 'STALE');
});

test('where it is unknown how long changes are kept, a gap is damage', () => {
  assert.is(judged(1_000 * hourMs, null), 'DAMAGED');
});

test('a setting that is smaller than any before is recorded, and no other', async () => {
  const control = new MemoryControlLog();
  for (const setting of ['86400000', '86400000', '3600000', '7200000', undefined, 'x']) {
    await noteCompactionLag(control, setting);
  }
  const lags = control.appended.map((record) => record.kind === 'compaction-lag' && record.ms);
  assert.equal(lags, [86_400_000, 3_600_000]);
  assert.is(control.verified, 2, 'it is read back before anything is judged');
});

test.run();
