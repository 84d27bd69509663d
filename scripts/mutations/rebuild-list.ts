/**
 * Mutations of the rebuild of a follower that only tests with servers detect. Data only.
 */
import type { Mutation } from './mutation.ts';

export const rebuildShortcuts: readonly Mutation[] = [
  {
    name: 'swapped-in-two-steps',
    harm: 'an agent that is killed during the swap leaves a node without a database',
    edits: [
      {
        file: 'src/fleet/provision/swap-databases.ts',
        rule: 'swap-in-one-transaction',
        replace: "$& await client.query('COMMIT; BEGIN');",
      },
    ],
    tests: ['test/fault/rebuild.test.ts'],
  },
  {
    name: 'starts-left-behind',
    harm: 'a rebuilt database is taken for an older copy of itself',
    edits: [
      {
        file: 'src/fleet/provision/rebuild-beside.ts',
        rule: 'start-number-moves-along',
        part: 'UPDATE understudy.node SET start_number = $1',
        replace: 'SELECT $1::bigint',
      },
    ],
    tests: ['test/fault/rebuild.test.ts'],
  },
  {
    name: 'rebuilt-over-old-rows',
    harm: 'rows return whose deletes are no longer in the topic',
    edits: [
      {
        file: 'src/fleet/provision/building.ts',
        rule: 'rebuild-empties-tables',
        part: 'relationIds.length === 0',
        replace: 'relationIds.length >= 0',
      },
      { file: 'src/fleet/provision/building.ts', rule: 'new-tables-are-empty', replace: '' },
    ],
    tests: ['test/integration/rebuild.test.ts'],
  },
  {
    name: 'rebuild-unmarked-for-promotion',
    harm: 'a node that is being rebuilt or is too late is promoted',
    edits: [
      {
        file: 'src/fleet/operations/failover.ts',
        rule: 'no-promotion-while-building',
        replace: '',
      },
      { file: 'src/agent/agent.ts', rule: 'no-promotion-while-rebuild-waits', replace: '' },
    ],
    tests: ['test/fault/rebuild.test.ts'],
  },
  {
    name: 'away-until-the-gap-ends',
    harm: 'a late follower reports damage of the topic, and no node can be promoted',
    edits: [
      {
        file: 'src/fleet/provision/build-start.ts',
        rule: 'age-by-clock-of-brokers',
        replace: 'return control.newestAppendMs - 3_600_000;',
      },
    ],
    tests: ['test/fault/rebuild.test.ts'],
  },
  {
    name: 'place-left-unfinished',
    harm: 'a database that stopped at a point has no unique indexes',
    edits: [
      {
        file: 'src/agent/follower-tasks.ts',
        rule: 'stop-with-whole-schema',
        part: '!isOver',
        replace: 'isOver',
      },
      {
        file: 'src/fleet/operations/detach-steps.ts',
        rule: 'detach-with-whole-schema',
        replace: '',
      },
    ],
    tests: ['test/integration/run-until.test.ts'],
  },
  {
    name: 'place-of-any-age',
    harm: 'a database that stopped at a point is missing rows that changed later',
    edits: [
      {
        file: 'src/follower/bootstrap/checkpoint-search.ts',
        rule: 'place-while-all-is-kept',
        replace: 'return true;',
      },
    ],
    tests: ['test/model/place.test.ts', 'test/integration/run-until.test.ts'],
  },
];
