/**
 * A failover is requested while the candidate's agent starts, or the agent is killed in the middle
 * and finishes it after its restart, or its claim arrives late: the command gets an answer in every
 * case.
 */
// time-limit: 300s
// runs: ci, since test/unit/requests.test.ts has the decisions
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Answer, type Fleet, startFleet } from '../support/fleet.ts';
import { apiKeys, KafkaProxy } from '../support/kafka-proxy.ts';
import { type Stack, useStack } from '../support/stack.ts';

const words = ['failover', 'b', '--allow-data-loss', '--reason', 'test'] as const;
let stack: Stack;
let fleet: Fleet;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
});

test.after(async () => {
  await stack.close();
});

test.before.each(async () => {
  fleet = await startFleet({ stack, tables: 'CREATE TABLE item (id int PRIMARY KEY)' });
  await fleet.startAgent('a');
  await fleet.sql('a', 'INSERT INTO item VALUES (1)');
});

test.after.each(async () => {
  await fleet.close();
});

async function leads({ code, json, stderr }: Answer): Promise<void> {
  assert.is(code, 0, `${stderr} ${JSON.stringify(json)}\n${fleet.logs()}`);
  assert.is(json.node, 'b');
  assert.is(json.epoch, 2);
  assert.match(json.lsn, /^2:/);
  await fleet.sql('b', 'INSERT INTO item VALUES (2)');
}

test('a failover that is requested while the agent starts is served when it can be', async () => {
  const starts = async (): Promise<number> => {
    const [row] = await fleet.sql<{ n: number }>(
      'b',
      'SELECT start_number::int AS n FROM understudy.node',
    );
    return row?.n ?? 0;
  };
  const before = await starts();
  fleet.spawnAgent('b', 'agent.after-start=pause:8000');
  await fleet.until('the agent of b starts', starts, { reached: (n) => n > before });
  await leads(await fleet.cli(...words));
});

for (const failpoint of ['own.after-claim', 'own.before-epoch-begin', 'promote.before-unguard']) {
  test(`a candidate that is killed at ${failpoint} answers after its restart`, async () => {
    const first = await fleet.startAgent('b', `${failpoint}=kill`);
    await fleet.caughtUp();
    const requested = fleet.cli(...words);
    assert.is(await first.exitCode(), null, first.log);
    fleet.spawnAgent('b');
    await leads(await requested);
  });
}

test('a dry run counts what the leader has not published', async () => {
  await fleet.startAgent('b');
  await fleet.caughtUp();
  const dryRun = async () => (await fleet.cli('failover', 'b', '--dry-run')).json;
  await fleet.agent('a').stop();
  assert.is((await dryRun()).rpo.transactions, 0);
  for (const id of [5, 6, 7]) await fleet.sql('a', 'INSERT INTO item VALUES ($1)', [id]);
  const { leaderUp, rpo } = await dryRun();
  assert.is(leaderUp, true);
  assert.is(rpo.transactions, 3);
  assert.ok(rpo.bytes > 0, String(rpo.bytes));
});

test('a claim that arrives after its promotion was given up is begun all the same', async () => {
  await fleet.close();
  const kafka = await KafkaProxy.start(stack.brokers);
  fleet = await startFleet({
    ...{ stack, tables: 'CREATE TABLE item (id int PRIMARY KEY)' },
    links: { b: { brokers: kafka.addresses } },
  });
  await fleet.startAgents();
  await fleet.sql('a', 'INSERT INTO item VALUES (1)');
  await fleet.caughtUp();
  const nonce = kafka.holdRequest(apiKeys.produce);
  const requested = fleet.cli(...words);
  await nonce.caught;
  const claim = kafka.holdRequest(apiKeys.produce);
  await nonce.release();
  await claim.caught;
  claim.giveUp();
  const failed = await requested;
  assert.is(failed.code, 2, `${JSON.stringify(failed)}\n${fleet.logs()}`);
  await fleet.agent('b').logged(/"message":"not promoted"[\s\S]*"message":"following"/);
  await fleet.sql('a', 'INSERT INTO item VALUES (3)');
  await claim.release();
  assert.is(await fleet.agent('a').exitCode(), 3, fleet.agent('a').log);
  await fleet.agent('b').logged(/"message":"leading"/);
  await fleet.sql('b', 'INSERT INTO item VALUES (2)');
  await kafka.close();
});

test('a failed request is answered once, and can be repeated', async () => {
  const agent = await fleet.startAgent('b', 'promote.after-slot=error');
  await fleet.caughtUp();
  const failed = await fleet.cli(...words);
  assert.is(failed.code, 5, JSON.stringify(failed));
  assert.match(failed.json.error.message, 'failpoint promote.after-slot');
  await agent.logged(/"message":"following"[\s\S]*"message":"following"/);
  await leads(await fleet.cli(...words));
});

test.run();
