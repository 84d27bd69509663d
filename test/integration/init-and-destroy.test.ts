/**
 * A refused init leaves nothing behind; destroy removes what init created, and init works again.
 * Configurations that do not fit the cluster are refused before anything happens. Tests run in
 * order, on one fleet.
 */
import { writeFile } from 'node:fs/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { describeTopic } from '../../src/topic/kafka/admin.ts';
import { connectKafka } from '../../src/topic/kafka/client.ts';
import { changesTopic, controlTopic } from '../../src/topic/records/layout.ts';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { type Stack, useStack } from '../support/stack.ts';
import { testLog } from '../support/topic-stack.ts';
import { tracesQuery } from '../support/traces.ts';

let stack: Stack;
let fleet: Fleet;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
  fleet = await startFleet({
    stack,
    init: false,
    partitions: 2,
    tables: `CREATE TABLE item (id int PRIMARY KEY, v text);
      CREATE TABLE other (id int PRIMARY KEY);
      CREATE FUNCTION noop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
      CREATE TRIGGER always BEFORE INSERT ON item FOR EACH ROW EXECUTE FUNCTION noop();
      ALTER TABLE item ENABLE ALWAYS TRIGGER always`,
  });
});

test.after(async () => {
  await fleet.close();
  await stack.close();
});

async function traces(): Promise<string[]> {
  const found: string[] = [];
  for (const node of fleet.nodes) {
    const rows = await fleet.sql<{ trace: string }>(node, tracesQuery);
    found.push(...rows.map(({ trace }) => `${node}: ${trace}`));
  }
  const client = connectKafka({ brokers: stack.brokers, clientId: 'test' }, testLog);
  for (const topic of [changesTopic(fleet.cluster), controlTopic(fleet.cluster)]) {
    if ((await describeTopic(client, topic)) !== null) found.push(`topic ${topic}`);
  }
  return found;
}

test('init refuses rows on a follower and leaves nothing behind', async () => {
  await fleet.sql('b', 'INSERT INTO other VALUES (1)');
  const { code, json } = await fleet.cli('init');
  assert.is(code, 4, JSON.stringify(json));
  assert.is(json.error.code, 'TABLE_NOT_EMPTY');
  assert.match(json.error.message, /other/);
  assert.equal(await traces(), []);
  await fleet.sql('b', 'DELETE FROM other');
});

test('init that fails at its end removes all that it created', async () => {
  const { code, json } = await fleet.cliDyingAt('own.after-claim=error', 'init');
  assert.is(code, 5, JSON.stringify(json));
  assert.equal(await traces(), []);
});

test('a misspelt key in understudy.yaml is refused by name', async () => {
  const { config } = fleet;
  await fleet.configure({ ...config, tabels: ['public.*'] });
  for (const words of [['init'], ['run', 'a'], ['status'], ['destroy', '--yes']]) {
    const { code, json } = await fleet.cli(...words);
    assert.is(code, 1, words[0]);
    assert.is(json.error.code, 'CONFIG_INVALID');
    assert.match(`${json.error.message} ${json.error.hint}`, /tabels.*tables/s);
  }
  await writeFile(fleet.configFile, 'cluster: [');
  assert.is((await fleet.cli('status')).code, 1);
  await fleet.configure(config);
  assert.equal(await traces(), []);
});

test('verbs that need a cluster are refused before there is one', async () => {
  const verbs = [['run', 'a'], ['point', 'x'], ['verify'], ['wait', 'b', '--at', '1:0/1']];
  for (const words of [...verbs, ['failover', 'b', '--dry-run']]) {
    const { code, json } = await fleet.cli(...words);
    assert.is(code, 4, `${words[0]}: ${JSON.stringify(json)}`);
    assert.is(json.error.code, 'NOT_INITIALISED', words[0]);
  }
  assert.equal(await traces(), []);
});

test('init creates a cluster once', async () => {
  const first = await fleet.cli('init');
  assert.is(first.code, 0, first.stderr);
  const second = await fleet.cli('init');
  assert.is(second.code, 4);
  assert.is(second.json.error.code, 'ALREADY_INITIALISED');
  await fleet.startAgents();
  await fleet.sql('a', `INSERT INTO item VALUES (1, 'arrives')`);
  await fleet.caughtUp();
  await fleet.assertSame('item');
});

test('destroy is refused while agents run, and without --yes only lists', async () => {
  const refused = await fleet.cli('destroy', '--yes');
  assert.is(refused.code, 3, JSON.stringify(refused.json));
  const listed = await fleet.cli('destroy');
  assert.is(listed.code, 0, listed.stderr);
  await fleet.sql('a', `INSERT INTO item VALUES (2, 'still arrives')`);
  await fleet.caughtUp();
  assert.not(fleet.agent('a').ended || fleet.agent('b').ended);
});

test('another number of partitions in understudy.yaml is refused at run', async () => {
  const { config } = fleet;
  for (const node of fleet.nodes) assert.is(await fleet.agent(node).stop(), 0);
  await fleet.configure({ ...config, kafka: { brokers: stack.brokers, partitions: 3 } });
  for (const node of fleet.nodes) {
    const agent = fleet.spawnAgent(node);
    assert.is(await agent.exitCode(), 4, agent.log);
    assert.match(agent.log, /TOPIC_MISMATCH/);
  }
  await fleet.configure(config);
});

test('an unknown node, label, LSN or point is refused with the exit code of its kind', async () => {
  for (const [code, ...words] of [
    [1, 'run', 'z'],
    [1, 'run'],
    [1, 'wait', 'z', '--at', '1:0/1'],
    [1, 'wait', 'b'],
    [1, 'wait', 'b', '--at', 'Not A Label'],
    [1, 'point', 'Not-A-Label'],
    [1, 'nonsense'],
    [5, 'wait', 'b', '--at', 'never-made', '--timeout', '200ms'],
    [5, 'wait', 'b', '--at', '1:FFFFFFFF/0', '--timeout', '200ms'],
  ] as const) {
    const answer = await fleet.cli(...words);
    assert.is(answer.code, code, `${words.join(' ')}: ${JSON.stringify(answer.json)}`);
    assert.is(answer.json.error.exit, code);
  }
});

test('destroy removes all of it and no row; init works again afterwards', async () => {
  const { code, stderr } = await fleet.cli('destroy', '--yes');
  assert.is(code, 0, stderr);
  assert.equal(await traces(), []);
  for (const node of fleet.nodes) {
    assert.equal(await fleet.sql(node, 'SELECT count(*)::int AS n FROM item'), [{ n: 2 }]);
    await fleet.sql(node, 'TRUNCATE item');
  }
  const again = await fleet.cli('init', '--leader', 'b');
  assert.is(again.code, 0, again.stderr);
  await fleet.startAgents();
  await fleet.sql('b', `INSERT INTO item VALUES (1, 'the other way')`);
  await fleet.caughtUp('b');
  await fleet.assertSame('item', 'b');
});

test.run();
