/**
 * A refused init leaves nothing behind; destroy removes what init created, and init works again.
 * Configurations that do not fit the cluster are refused before anything happens. Tests run in
 * order, on one fleet.
 */
// time-limit: 400s
import { writeFile } from 'node:fs/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { describeTopic } from '../../src/topic/kafka/admin.ts';
import { connectKafka } from '../../src/topic/kafka/client.ts';
import { changesTopic, controlTopic } from '../../src/topic/records/layout.ts';
import { type Answer, type Fleet, startFleet } from '../support/fleet.ts';
import { followHint } from '../support/hint-runner.ts';
import { ownServer, type Stack, useStack } from '../support/stack.ts';
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
  const { code, json } = await fleet.cliDyingAt('own.before-epoch-begin=error', 'init');
  assert.is(code, 5, JSON.stringify(json));
  assert.equal(await traces(), []);
});

test('what an init left that was killed is removed by the next one', async () => {
  const steps = ['init.after-install', 'init.after-topics', 'init.after-slot', 'init.after-nodes'];
  const removing = 'an earlier init did not end: removing what it left';
  // Each removes what the one before has left, and is killed itself.
  for (const [at, step] of [...steps, 'own.after-claim'].entries()) {
    const killed = await fleet.cliDyingAt(`${step}=kill`, 'init');
    assert.is(killed.code, null, `${step}: ${killed.stdout} ${killed.stderr}`);
    assert.is(killed.stderr.includes(removing), at > 0, `${step}: ${killed.stderr}`);
    assert.is.not((await traces()).length, 0, step);
  }
  const last = await fleet.cliDyingAt('init.after-install=error', 'init');
  assert.is(last.code, 5, last.stdout);
  assert.match(last.stderr, removing);
  assert.equal(await traces(), []);
});

test('an init that was killed is named by run, and by the init of other databases', async () => {
  await fleet.cliDyingAt('init.after-nodes=kill', 'init');
  const run = await fleet.cli('run', 'b');
  assert.is(run.code, 4, run.stdout);
  assert.is(run.json.error.code, 'NOT_INITIALISED');
  await inCopiedFile(async () => {
    const { code, json } = await fleet.cli('init');
    assert.is(code, 4, JSON.stringify(json));
    assert.match(json.error.message, /no database of understudy.yaml belongs to them/);
  });
  await followHint(fleet, 'initUnfinished', run);
  assert.is((await fleet.cli('destroy', '--yes')).code, 0);
  assert.equal(await traces(), []);
});

test('init names the transaction that it waits for, and stops when told to', async () => {
  const own = await ownServer();
  const stopped = await startFleet({
    ...{ stack, servers: { a: own.server }, init: false },
    tables: 'CREATE TABLE item (id int PRIMARY KEY)',
  });
  try {
    const session = await stopped.session('a');
    await session.query(`SET application_name = 'nightly report'`);
    await session.query('BEGIN; INSERT INTO item VALUES (1)');
    const init = stopped.spawnCommand('init');
    await init.logged(/the slot waits for open transactions: pid \d+ .*\(nightly report\) since/);
    assert.is(await init.stop('SIGINT'), 130);
    assert.match(init.log, 'stopped: removing what was created');
    await session.query('ROLLBACK');
    for (const node of stopped.nodes) assert.equal(await stopped.sql(node, tracesQuery), []);
    assert.is((await stopped.cli('init')).code, 0);
  } finally {
    await stopped.close();
    await own.close();
  }
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

const refusals: Answer[] = [];

test('verbs that need a cluster are refused before there is one', async () => {
  const verbs = [['run', 'a'], ['point', 'x'], ['verify'], ['wait', 'b', '--at', '1:0/1']];
  for (const words of [...verbs, ['failover', 'b', '--dry-run']]) {
    const answer = await fleet.cli(...words);
    const { code, json } = answer;
    refusals.push(answer);
    assert.is(code, 4, `${words[0]}: ${JSON.stringify(json)}`);
    assert.is(json.error.code, 'NOT_INITIALISED', words[0]);
  }
  assert.equal(await traces(), []);
});

test('init creates a cluster once', async () => {
  const [refusal] = refusals;
  assert.ok(refusal);
  await followHint(fleet, 'notInitialised', refusal);
  const second = await fleet.cli('init');
  assert.is(second.code, 4);
  assert.is(second.json.error.code, 'ALREADY_INITIALISED');
  assert.match(second.json.error.message, /exists: stream .*, led by a$/);
  for (const node of fleet.nodes) {
    await followHint(fleet, 'clusterExists: run', second, { node });
  }
  await fleet.sql('a', `INSERT INTO item VALUES (1, 'arrives')`);
  await fleet.caughtUp();
  await fleet.assertSame('item');
});

/** As where understudy.yaml was copied for staging, with databases of its own. */
async function inCopiedFile(work: () => Promise<void>): Promise<void> {
  const { config } = fleet;
  const [a = '', b = ''] = await stack.createDatabases('staging');
  await fleet.configure({ ...config, nodes: { a: { url: a }, b: { url: b } } });
  await work();
  await fleet.configure(config);
}

test('a copied understudy.yaml cannot hurt the running cluster', async () => {
  await inCopiedFile(async () => {
    const init = await fleet.cli('init');
    assert.is(init.code, 4, init.stdout);
    assert.is(init.json.error.code, 'ALREADY_INITIALISED');
    const served = `database ${new URL(fleet.url('a')).pathname.slice(1)} at 127.0.0.1`;
    assert.match(init.json.error.message, /exists: stream .*, led by a, served from /);
    assert.match(init.json.error.message, served);
    assert.not.match(init.json.error.hint, 'destroy');
    const check = await fleet.cli('check');
    assert.is(check.code, 4, check.stdout);
    assert.equal(check.json.findings[0].message, init.json.error.message);
    const refused = await fleet.cli('destroy', '--yes');
    assert.is(refused.code, 4, refused.stdout);
    assert.is(refused.json.error.code, 'NEEDS_STREAM_ID');
    const { json, code } = await fleet.cli('destroy');
    assert.is(code, 0);
    assert.is(json.leader, 'a');
    assert.is(json.reasons.length, 2);
    assert.match(json.reasons.join(), served);
    assert.match(json.lastPoint, /^1:/);
    assert.equal(json.nodes, []);
    const other = await fleet.cli('destroy', '--stream', 'another-id');
    assert.is(other.code, 4, other.stdout);
    const { stdout } = await fleet.text('destroy');
    assert.match(stdout, `would remove (with --stream ${json.stream})`);
  });
  assert.not(fleet.agent('a').ended || fleet.agent('b').ended);
  await fleet.sql('a', `INSERT INTO item VALUES (3, 'unharmed')`);
  await fleet.caughtUp();
});

test('a file that does not name every node of the stream does not end it by --yes', async () => {
  const { config } = fleet;
  await fleet.configure({ ...config, nodes: { a: { url: fleet.url('a') } } });
  const { code, json } = await fleet.cli('destroy', '--yes');
  await fleet.configure(config);
  assert.is(code, 4, JSON.stringify(json));
  assert.match(json.error.message, /node b belongs to the stream, and understudy.yaml does not/);
});

test('destroy is refused while agents run, and without --yes only lists', async () => {
  const refused = await fleet.cli('destroy', '--yes');
  assert.is(refused.code, 3, JSON.stringify(refused.json));
  const listed = await fleet.cli('destroy');
  assert.is(listed.code, 0, listed.stderr);
  assert.equal([listed.json.agents, listed.json.reasons], [['a', 'b'], []]);
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
    assert.equal(await fleet.sql(node, 'SELECT count(*)::int AS n FROM item'), [{ n: 3 }]);
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
