/**
 * The leader's replication slot does not fit the topic (SLOT_MISMATCH). Each factory takes the
 * slot's name; the remedy is a resnapshot, because what the slot can no longer send is in no topic.
 */
import { UnderstudyError } from './understudy-error.ts';

/** What the loss of a slot means, and the remedy; `status` shows it too. */
export const slotLostHint =
  'Changes after the last point are not in the stream. Read every table again, which also ' +
  'deletes rows on followers that the leader no longer has: `understudy resnapshot --all`. Until ' +
  'then the leader’s rows are complete, and followers stay at the last point.';

const newSlotHint =
  'The stream cannot continue from this slot. Read every table again from a new one: ' +
  '`understudy resnapshot --all`';

export function slotMissing(slot: string): UnderstudyError {
  return new UnderstudyError(
    'SLOT_MISMATCH',
    `the replication slot ${slot} does not exist: it was dropped`,
    slotLostHint,
    undefined,
    { slot },
  );
}

export function slotLost(slot: string): UnderstudyError {
  return new UnderstudyError(
    'SLOT_MISMATCH',
    `the replication slot ${slot} has lost its WAL: Postgres invalidated it ` +
      '(max_slot_wal_keep_size or idle_replication_slot_timeout)',
    slotLostHint,
    undefined,
    { slot },
  );
}

export function slotOfOtherPlugin(slot: string, plugin: string | null): UnderstudyError {
  return new UnderstudyError(
    'SLOT_MISMATCH',
    `the replication slot ${slot} decodes with ${plugin ?? 'nothing'}, not pgoutput`,
    newSlotHint,
    undefined,
    { slot, plugin },
  );
}

/** `confirmed` and `start` are LSNs as text. */
export function slotAhead(slot: string, confirmed: string, start: string): UnderstudyError {
  return new UnderstudyError(
    'SLOT_MISMATCH',
    `the replication slot ${slot} is ahead of the topic: it begins at ${confirmed}, the topic ` +
      `ends at ${start}, and changes in between are in neither`,
    newSlotHint,
    undefined,
    { slot, confirmed, start },
  );
}

/** Postgres reports only that there is no publication, not what that means for the stream. */
export function slotOlderThanPublication(
  slot: string,
  publication: string,
  cause: unknown,
): UnderstudyError {
  return new UnderstudyError(
    'SLOT_MISMATCH',
    `the replication slot ${slot} is older than the publication ${publication}, which was ` +
      're-created',
    'What was written in between cannot be decoded. Read every table again from a new slot: ' +
      '`understudy resnapshot --all --new-slot`',
    cause,
    { slot, publication },
  );
}
