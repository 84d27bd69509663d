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
        find: "await hit('rebuild.inside-swap');",
        replace: "await client.query('COMMIT; BEGIN');\n    await hit('rebuild.inside-swap');",
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
        find: "'UPDATE understudy.node SET start_number = $1'",
        replace: "'SELECT $1::bigint'",
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
        find: 'const empty = relationIds.length === 0 ? [] :',
        replace: 'const empty = relationIds.length >= 0 ? [] :',
      },
      {
        file: 'src/fleet/provision/building.ts',
        find: 'await refuseNewNodeRows(client, name, tables);',
        replace: '',
      },
    ],
    tests: ['test/integration/rebuild.test.ts'],
  },
  {
    name: 'rebuild-unmarked-for-promotion',
    harm: 'a node that is being rebuilt or is too late is promoted',
    edits: [
      {
        file: 'src/fleet/operations/failover.ts',
        find: '&& (await isBeingBuilt(client))',
        replace: '&& (await isBeingBuilt(client)) && known.epoch < 0',
      },
      {
        file: 'src/agent/agent.ts',
        find: 'if ((await readPendingRebuild(this.#node.client)) !== null) throw',
        replace: "if (this.#node.name === '') throw",
      },
    ],
    tests: ['test/fault/rebuild.test.ts'],
  },
  {
    name: 'away-until-the-gap-ends',
    harm: 'a late follower reports damage of the topic, and no node can be promoted',
    edits: [
      {
        file: 'src/fleet/provision/build-start.ts',
        find: 'return control.newestAppendMs;',
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
        find: 'while (!isOver && (await openBuild(node.client)) !== null) {',
        replace: 'while (isOver && (await openBuild(node.client)) !== null) {',
      },
      {
        file: 'src/fleet/operations/detach-steps.ts',
        find: 'if (isUnderWay) throw schemaUnfinished(node, openBuildTexts(open));',
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
        find: 'return appendMs >= keptFromMs;',
        replace: 'return appendMs >= 0 || keptFromMs > 0;',
      },
    ],
    tests: ['test/model/place.test.ts', 'test/integration/run-until.test.ts'],
  },
];
