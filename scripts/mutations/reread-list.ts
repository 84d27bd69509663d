/**
 * Shortcuts in reading tables anew: rows that are wrong, gone or left over. Data alone: main.ts
 * breaks the code so, in a copy, and runs the tests.
 */
import type { Mutation } from './mutation.ts';

const tests = ['test/integration/resnapshot.test.ts'];

export const rereadShortcuts: readonly Mutation[] = [
  {
    name: 'unseen-rows-stay',
    harm: 'a follower keeps rows that the leader has not',
    edits: [
      {
        file: 'src/follower/apply/resnapshots.ts',
        find: '    await this.removeUnseen(target);\n',
        replace: '',
      },
    ],
    tests,
  },
  {
    name: 'respelled-keys-stay',
    harm: 'a key that is spelled otherwise stays as it was',
    edits: [
      {
        file: 'src/follower/apply/apply-targets.ts',
        find: 'this.resnapshots.has(id) ? this.#replacing(target) : target',
        replace: 'target',
      },
    ],
    tests,
  },
  {
    name: 'gone-row-in-the-way',
    harm: 'a row that is no more keeps another with its unique value out, and the node stops',
    edits: [
      {
        file: 'src/follower/apply/applier.ts',
        find: "return way === 'replace' && isResnapshot ? 'clear' : null;",
        replace: 'return null;',
      },
    ],
    tests,
  },
  {
    name: 'reading-forgotten-by-a-new-leader',
    harm: 'followers remove the rows that had not come again when the leader changed',
    edits: [
      {
        file: 'src/fleet/promotion/promotion-steps.ts',
        find: 'keyed.filter((relation) => unfinished.has(relation))',
        replace: 'keyed.filter(() => unfinished.has(""))',
      },
    ],
    tests,
  },
  {
    name: 'partition-of-the-gap-unread',
    harm: 'rows of a partition that came while nothing was sent reach nobody',
    edits: [
      {
        file: 'src/leader/tables/known-tables.ts',
        find: "table.kind === 'ordinary' && (await unreadPartitions(this.#client)).has(table.oid);",
        replace: 'false;',
      },
    ],
    tests: ['test/fault/slot-loss.test.ts'],
  },
];
