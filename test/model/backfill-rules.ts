/**
 * What leader and follower of healing-world.ts do. Flows out: the rules as they are, for tests to
 * leave one out, and the bounds that a history has.
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
  /** What a restart makes of what the last point says. */
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
  /** How many rows were there before the stream. */
  readonly rowsBefore: number;
  /** Whether the table is read anew now and then. */
  readonly rereads: boolean;
  /** Of how many moments for a point one is taken. */
  readonly pointsEvery: number;
}
