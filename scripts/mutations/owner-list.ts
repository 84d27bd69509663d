/**
 * Mutations by which what a table's owner put into the table runs as the agent's superuser. Data
 * only.
 */
import type { Mutation } from './mutation.ts';

const file = 'src/follower/apply/row-functions.ts';
const tests = ['test/integration/table-owners.test.ts'];

export const ownerShortcuts: readonly Mutation[] = [
  {
    name: 'rows-as-agent',
    harm: 'the owner of a published table becomes superuser by a CHECK constraint',
    edits: [
      {
        file,
        rule: 'rows-as-owner',
        replace: `if (owner === null || text !== '') return statement;`,
      },
    ],
    tests,
  },
  {
    name: 'session-left-as-it-is',
    harm: 'a cursor that such a constraint declares runs at the commit as the superuser',
    edits: [{ file, rule: 'session-clean-after-owner', replace: `const resets = ['NULL'];` }],
    tests,
  },
  {
    name: 'names-after-owner',
    harm: 'such a constraint prepares another statement under a name of the agent’s',
    edits: [
      {
        file,
        rule: 'no-named-statements-after-owner',
        replace: `if (text === '') useNoStatementNames(this.#client);`,
      },
    ],
    tests,
  },
  {
    name: 'function-of-another',
    harm: 'after REASSIGN OWNED, code of a table runs as another role than its owner',
    edits: [{ file, rule: 'function-of-the-owner', replace: `const isOwner = 'NULL';` }],
    tests,
  },
  {
    name: 'deferred-trigger-fires',
    harm: 'a deferred trigger of a table that is not published runs at the commit as the superuser',
    edits: [{ file, rule: 'no-deferred-trigger', replace: '' }],
    tests,
  },
];
