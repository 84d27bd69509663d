/**
 * What must hold of a slot before streaming begins: Postgres itself would silently begin later than
 * asked, or decode in another way.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { checkSlot, type SlotState } from '../../src/leader/stream/slot.ts';
import { lsn } from '../support/builders.ts';

const sound: SlotState = {
  name: 's',
  plugin: 'pgoutput',
  active: false,
  confirmedFlushLsn: lsn(100),
  walStatus: 'reserved',
};

function refused(slot: SlotState | null, start: number, message: RegExp): void {
  try {
    checkSlot(slot, 's', lsn(start));
  } catch (error) {
    assert.instance(error, UnderstudyError);
    assert.is((error as UnderstudyError).code, 'SLOT_MISMATCH');
    assert.match((error as UnderstudyError).message, message);
    return;
  }
  assert.unreachable(`${message} was not refused`);
}

test('a slot at the start or behind it is accepted', () => {
  checkSlot(sound, 's', lsn(100));
  checkSlot(sound, 's', lsn(101));
});

test('a slot that is ahead by one byte is refused', () => {
  refused(sound, 99, /ahead of the topic/);
});

test('a slot that was dropped, lost its WAL or has another plugin is refused', () => {
  refused(null, 100, /does not exist: it was dropped/);
  refused({ ...sound, walStatus: 'lost' }, 100, /lost its WAL/);
  refused({ ...sound, plugin: 'test_decoding' }, 100, /decodes with test_decoding/);
});

test.run();
