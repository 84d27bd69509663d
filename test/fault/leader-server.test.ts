/**
 * The leader's Postgres is killed, and stopped without a checkpoint, while its clients write. When
 * it is back it sends again what was confirmed already; nothing of it is published twice, and what
 * was acknowledged is on the follower.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { FleetUnderLoad } from '../support/fleet-under-load.ts';
import { isFull } from '../support/form.ts';
import { type OwnServer, ownServer, type Stack, useStack } from '../support/stack.ts';

// time-limit: 600s
// runs: ci, since test/model/publish.test.ts loses confirmations

const rounds = isFull ? 10 : 1;
let stack: Stack;
let own: OwnServer;
let run: FleetUnderLoad;

test.before(async () => {
  [stack, own] = await Promise.all([useStack({ postgres: 2 }), ownServer()]);
  run = await FleetUnderLoad.start({
    ...{ stack, partitions: 4, servers: { a: own.server }, clients: { writers: 1 } },
  });
});

test.after(async () => {
  await run.close();
  await own.close();
  await stack.close();
});

test('a leader’s server that crashes and returns loses and repeats nothing', async () => {
  const { clients, fleet } = run;
  for (let round = 0; round < rounds; round += 1) {
    for (const how of ['kill', 'immediate'] as const) {
      await clients.progress(100);
      await (how === 'kill' ? own.server.kill() : own.server.stop('immediate'));
      await own.server.start();
      await clients.progress(50);
    }
    await run.compare();
  }
  await run.end();
  assert.not(fleet.agent('a').ended || fleet.agent('b').ended, fleet.logs());
});

test.run();
