/**
 * The rules of leader and follower in backfill-world.ts, of which tests leave out one at a time,
 * and the bounds of a history.
 */
import type { UnfinishedTable } from '../../src/change/change.ts';
import { finishedAt, rowsSeen } from '../../src/follower/apply/resnapshots.ts';
import { rowActions } from '../../src/follower/apply/row-actions.ts';
import { BackfillMerge } from '../../src/leader/backfill/backfill-merge.ts';
import { Reselect } from '../../src/leader/backfill/reselect.ts';
import { FoundKeys } from '../../src/leader/backfill/reselect-search.ts';
import type { FollowerRules } from './model-follower.ts';

/** The classes and functions may be those of a module with a rule left out. */
export interface BackfillRules extends FollowerRules {
  readonly Reselects: typeof Reselect;
  readonly Found: typeof FoundKeys;
  readonly Backfills: typeof BackfillMerge;
  /** What a restart takes from the last point. */
  readonly unfinishedAgain: (unfinished: readonly UnfinishedTable[]) => readonly UnfinishedTable[];
}

export const rightRules: BackfillRules = {
  ...{ Reselects: Reselect, Found: FoundKeys, Backfills: BackfillMerge },
  unfinishedAgain: (unfinished) => unfinished,
  ...{ finishedAt, rowsSeen, rowActions, keepsSeen: false },
};

export interface BackfillBounds {
  /** How many keys a leader remembers. */
  readonly wantedMax: number;
  readonly changedMax: number;
  /** How many rows predate the stream. */
  readonly rowsBefore: number;
  /** Whether there are resnapshots. */
  readonly resnapshots: boolean;
  /** One of how many opportunities for a point is taken. */
  readonly pointsEvery: number;
}
