/**
 * Mutations of a resnapshot, after which rows are wrong, missing or left over. Data only.
 */
import type { Mutation } from './mutation.ts';

const tests = ['test/integration/resnapshot.test.ts'];
const ofChanges = ['test/integration/schema-changes.test.ts'];

export const resnapshotShortcuts: readonly Mutation[] = [
  {
    name: 'unseen-rows-stay',
    harm: 'a follower keeps rows that the leader does not have',
    edits: [
      {
        file: 'src/follower/apply/resnapshots.ts',
        rule: 'resnapshot-removes-unseen-rows',
        replace: '',
      },
    ],
    tests,
  },
  {
    name: 'respelled-keys-stay',
    harm: 'a key whose text changed keeps its old text',
    edits: [
      {
        file: 'src/follower/apply/apply-targets.ts',
        rule: 'resnapshot-replaces-rows',
        part: 'this.resnapshots.has(id) ? this.#replacing(target) : target',
        replace: 'target',
      },
    ],
    tests,
  },
  {
    name: 'gone-row-in-the-way',
    harm: 'a deleted row blocks another with its unique value, and the node stops',
    edits: [
      {
        file: 'src/follower/apply/applier.ts',
        rule: 'unseen-row-gives-way',
        replace: 'return null;',
      },
    ],
    tests,
  },
  {
    name: 'reading-forgotten-by-a-new-leader',
    harm: 'followers delete the rows that were not yet read when the leader changed',
    edits: [
      {
        file: 'src/fleet/promotion/follower-promotion.ts',
        rule: 'promotion-resumes-backfill',
        replace: 'const wanted: typeof keyed = [];',
      },
    ],
    tests,
  },
  {
    name: 'partition-of-the-gap-unread',
    harm: 'rows of a partition that was created while no change was sent are missing on followers',
    edits: [
      {
        file: 'src/leader/tables/known-tables.ts',
        rule: 'new-partition-is-backfilled',
        replace: 'const isToRead = false;',
      },
    ],
    tests: ['test/fault/slot-loss.test.ts'],
  },
  {
    name: 'altered-table-keeps-its-id',
    harm: 'rows of two shapes have one relation id, and the stream stops at the first of them',
    edits: [
      {
        file: 'src/fleet/promotion/altered-tables.ts',
        rule: 'altered-table-has-new-id',
        part: 'newShape(table, used, ',
        replace: 'newShape(table, new Set(), ',
      },
    ],
    tests: ofChanges,
  },
  {
    name: 'ended-relation-is-silent',
    harm: 'followers keep a table under its former id, and refuse the new one',
    edits: [
      {
        file: 'src/leader/stream/transaction-builder.ts',
        rule: 'ended-relation-is-published',
        replace: 'if (relation.dropped) return [];',
      },
    ],
    tests: ofChanges,
  },
  {
    name: 'rows-of-an-ended-relation',
    harm: 'no new node can be built: its rows of a former shape have no table',
    edits: [
      {
        file: 'src/follower/bootstrap/topic-survey.ts',
        rule: 'ended-relation-has-no-rows',
        replace: 'return new Map();',
      },
    ],
    tests: ofChanges,
  },
  {
    name: 'attached-table-unnoticed',
    harm: 'rows of a partitioned table are other ones on followers while the stream goes on',
    edits: [
      {
        file: 'src/leader/tables/known-tables.ts',
        rule: 'attached-table-stops',
        replace: '',
      },
    ],
    tests: ofChanges,
  },
];
