/**
 * When the WAL that a slot keeps is worth a warning, when it is urgent, when the slot is lost, and
 * how often the log hears of it.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  judgeRetention,
  type RetentionLevel,
  RetentionReports,
} from '../../src/fleet/status/retained-wal.ts';
import type { SlotWal } from '../../src/leader/stream/slot.ts';

const GiB = 1024 ** 3;

/** A slot with a limit of 100 GiB that keeps so much. */
function keeping(gib: number, changes: Partial<SlotWal> = {}): SlotWal {
  return {
    name: 'understudy_shop_1',
    active: false,
    walStatus: 'reserved',
    retainedBytes: gib * GiB,
    unconfirmedBytes: gib * GiB,
    safeBytes: (100 - gib) * GiB,
    ...changes,
  };
}

function unlimited(gib: number): SlotWal {
  return keeping(gib, { safeBytes: null });
}

test('the level follows the share of the limit, and without a limit the size', () => {
  const cases: readonly (readonly [SlotWal | null, RetentionLevel])[] = [
    [keeping(0), 'fine'],
    [keeping(59), 'fine'],
    [keeping(60), 'warning'],
    [keeping(84), 'warning'],
    [keeping(85), 'urgent'],
    [keeping(100), 'urgent'],
    // Past the limit Postgres reports a negative number of bytes.
    [keeping(101), 'urgent'],
    [keeping(10, { walStatus: 'unreserved' }), 'urgent'],
    [keeping(10, { walStatus: 'extended' }), 'fine'],
    [unlimited(9.9), 'fine'],
    [unlimited(10), 'warning'],
    [unlimited(10_000), 'warning'],
    [keeping(0, { walStatus: 'lost', retainedBytes: null, safeBytes: null }), 'lost'],
    [null, 'lost'],
  ];
  for (const [wal, level] of cases) {
    assert.is(judgeRetention(wal).level, level, JSON.stringify(wal));
  }
});

test('a report names the slot, the size, the limit and the remedy', () => {
  const limited = judgeRetention(keeping(70));
  assert.is(
    limited.message,
    'the slot understudy_shop_1 keeps 70 GB of WAL, and is invalidated after 30 GB more',
  );
  assert.match(limited.hint, /Nothing reads it.*max_slot_wal_keep_size/);
  const past = judgeRetention(keeping(103));
  assert.match(past.message, /invalidated after 0 B more/);
  const busy = judgeRetention({ ...unlimited(12), active: true });
  assert.match(busy.message, /keeps 12 GB of WAL, without a limit/);
  assert.match(busy.hint, /slower than its writers.*free space of the disk/);
  for (const gone of [null, keeping(0, { walStatus: 'lost' })]) {
    assert.match(judgeRetention(gone).message, /its writes are not published/);
    assert.match(judgeRetention(gone).hint, /Read every table again.*resnapshot --all/);
  }
});

test('the log hears of each change, of what lasts now and then, and of nothing else', () => {
  const reports = new RetentionReports();
  const said: string[] = [];
  const look = (wal: SlotWal | null, seconds: number): void => {
    const retention = reports.next(wal, seconds * 1000);
    if (retention !== null) said.push(`${seconds} ${retention.level}`);
  };
  look(keeping(1), 0);
  for (let second = 5; second <= 400; second += 5) look(keeping(70), second);
  // Around the limit: left only well below it.
  look(keeping(59), 405);
  look(keeping(61), 410);
  look(keeping(90), 415);
  look(keeping(91), 470);
  look(keeping(91), 475);
  look(keeping(80), 480);
  look(keeping(70), 485);
  look(keeping(50), 490);
  look(keeping(50), 9_000);
  look(null, 9_005);
  look(null, 9_010);
  assert.equal(said, [
    '5 warning',
    '305 warning',
    '415 urgent',
    '475 urgent',
    '485 warning',
    '490 fine',
    '9005 lost',
  ]);
});

test.run();
