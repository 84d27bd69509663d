/**
 * What leader and follower of healing-world.ts do. Flows out: the rules as they are, for tests to
 * leave one out, and the bounds that a history has.
 */
import type { UnfinishedTable } from '../../src/change/change.ts';
import { finishedAt, rowsThatCame } from '../../src/follower/apply/rereads.ts';
import { ChunkMerge } from '../../src/leader/backfill/chunk-merge.ts';
import { Healing } from '../../src/leader/backfill/reselect.ts';
import { FoundKeys } from '../../src/leader/backfill/row-search.ts';
import type { FollowerRules } from './model-follower.ts';

/** The classes and functions may be those of a module with a rule left out. */
export interface HealingRules extends FollowerRules {
  readonly Heal: typeof Healing;
  readonly Found: typeof FoundKeys;
  readonly Chunks: typeof ChunkMerge;
  /** What a restart makes of what the last point says. */
  readonly unfinishedAgain: (unfinished: readonly UnfinishedTable[]) => readonly UnfinishedTable[];
}

export const rightRules: HealingRules = {
  ...{ Heal: Healing, Found: FoundKeys, Chunks: ChunkMerge },
  unfinishedAgain: (unfinished) => unfinished,
  ...{ finishedAt, rowsThatCame, keepsSeen: false },
};

export interface HealingBounds {
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
