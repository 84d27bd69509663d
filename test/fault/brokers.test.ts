// time-limit: 300s
/**
 * Three brokers, each of which leads some partitions or coordinates the transactions, die in turn
 * and come back; then two of them at once. Partitions and the coordinator move under the agents.
 * What is written meanwhile waits in the leader's WAL; nothing is lost and nothing is there twice.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Sandbox, startSandbox } from '../../scripts/sandbox/sandbox.ts';
import { type Fleet, type NodeName, startFleet } from '../support/fleet.ts';
import type { FleetAgent } from '../support/fleet-agent.ts';
import { loadTables } from '../support/load.ts';
import { LoadedFleet } from '../support/loaded-fleet.ts';

/** Controllers elect first, then partitions get leaders, then replicas come back into sync. */
const electionMaxMs = 120_000;
const rounds = process.env.UNDERSTUDY_TEST_FULL === undefined ? 1 : 4;

let sandbox: Sandbox;
let fleet: Fleet;
let loaded: LoadedFleet;
let agents: Record<NodeName, FleetAgent>;

test.before(async () => {
  const log = (line: string): void => void process.stderr.write(`${line}\n`);
  sandbox = await startSandbox({ postgres: 0, brokers: 3, registry: false, log });
  fleet = await startFleet({ partitions: 4, tables: loadTables, brokers: sandbox.brokers });
  agents = await fleet.startAgents();
  loaded = await LoadedFleet.begin(fleet);
});

test.after(async () => {
  await loaded.stop();
  await fleet.close();
  await sandbox.stop();
});

async function isExact(): Promise<void> {
  await loaded.isExact();
  assert.not(agents.a.ended || agents.b.ended, fleet.logs());
  await loaded.progress(10);
}

for (let round = 1; round <= rounds; round += 1) {
  for (const index of [0, 1, 2]) {
    test(`broker ${index + 1} of three dies, the stream goes on (${round})`, async () => {
      const broker = sandbox.kafka[index];
      await broker?.kill();
      await loaded.progress(50);
      // Two of three brokers take and give records.
      await fleet.caughtUp();
      await broker?.start();
      await isExact();
    });
  }

  test(`two of three brokers die: the stream waits for one (${round})`, async () => {
    const [first, second] = sandbox.kafka;
    await Promise.all([first?.kill(), second?.kill()]);
    await loaded.progress(50);
    const token = await fleet.token();
    const [there] = await fleet.sql('b', `SELECT understudy.wait_for($1, '1 s') AS there`, [token]);
    assert.equal(there, { there: false }, 'nothing is committed by one broker of three');
    await first?.start();
    await fleet.caughtUp('a', fleet.nodes, electionMaxMs);
    await second?.start();
    await isExact();
  });
}

test.run();
