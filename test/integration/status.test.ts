/**
 * The commands that look and name, against agents that run, are stopped, and are gone: `status`
 * always answers, `point`, `points` and `wait` speak of the same LSNs.
 */
// time-limit: 480s
import { setTimeout as sleep } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { FleetStatus, NodeStatus } from '../../src/fleet/status/node-status.ts';
import { nobody } from '../support/checked-fleet.ts';
import { type Fleet, patienceMs, startFleet } from '../support/fleet.ts';

const pollMs = 100;
const looks = suite('status, points, wait');
let fleet: Fleet;

looks.before(async () => {
  fleet = await startFleet({ tables: 'CREATE TABLE orders (id int PRIMARY KEY, note text)' });
});

looks.after(async () => {
  await fleet.close();
});

function nodeOf({ nodes }: FleetStatus, name: string): NodeStatus {
  const node = nodes.find((one) => one.name === name);
  if (node === undefined) throw new Error(`${name} is not in the status`);
  return node;
}

async function statusNow(changes: Readonly<Record<string, unknown>> = {}): Promise<FleetStatus> {
  const { config } = fleet;
  await fleet.configure({ ...config, ...changes });
  const { code, json, stderr } = await fleet.cli('status');
  await fleet.configure(config);
  assert.is(code, 0, stderr);
  assert.is(stderr, '');
  return json;
}

/** The first status that is as wanted. */
async function until(isWanted: (status: FleetStatus) => boolean): Promise<FleetStatus> {
  for (const deadlineMs = Date.now() + patienceMs; ; await sleep(pollMs)) {
    const status = await statusNow();
    if (isWanted(status)) return status;
    const late = Date.now() > deadlineMs;
    assert.not(late, `never: ${JSON.stringify(status)}\n${fleet.logs()}`);
  }
}

looks('before any agent runs the fleet is stopped, and that is told', async () => {
  const status = await statusNow();
  assert.is(status.cluster, fleet.cluster);
  assert.is(status.epoch, 1);
  assert.is(status.leader, 'a');
  assert.is(status.durability, 'async');
  assert.is(status.topic, `${status.cluster}.changes`);
  assert.match(status.stream ?? '', /^[0-9a-f-]{36}$/);
  for (const { name, state, why } of status.nodes) {
    assert.is(state, 'stopped');
    assert.equal(why, [`no agent runs: understudy run ${name}`]);
  }
  assert.is(nodeOf(status, 'b').promotable, true);
});

looks('agents that run are streaming', async () => {
  await fleet.startAgents();
  await fleet.sql('a', `INSERT INTO orders VALUES (1, 'one')`);
  const status = await until((now) => nodeOf(now, 'b').lagBytes === 0);
  const { lsn, slot, ...a } = nodeOf(status, 'a');
  assert.match(lsn ?? '', /^1:/);
  assert.is(slot?.name, `understudy_${status.cluster}_1`);
  assert.is(slot?.walStatus, 'reserved');
  assert.ok(
    (slot?.retainedBytes ?? 0) > 0 && (slot?.safeBytes ?? 0) > 2 ** 30,
    JSON.stringify(slot),
  );
  assert.equal(a, {
    name: 'a',
    role: 'leader',
    state: 'streaming',
    lagBytes: 0,
    lagMs: 0,
    exact: true,
    promotable: false,
    why: [],
  });
  const b = nodeOf(status, 'b');
  assert.is(b.role, 'follower');
  assert.is(b.state, 'streaming');
  assert.is(b.exact, true);
  assert.is(b.promotable, true);
  assert.is(b.slot, null);
});

looks('a watch goes on until it is stopped, one object a line', async () => {
  const watch = fleet.spawnCommand('--json', 'status', '--watch');
  await watch.says(/\n.*\n/);
  assert.is(await watch.stop('SIGINT'), 0);
  const [first = '', second = ''] = watch.log.split('\n');
  assert.is((JSON.parse(first) as FleetStatus).leader, 'a');
  assert.is((JSON.parse(second) as FleetStatus).leader, 'a');
});

looks('a point is made once, listed, and waited for', async () => {
  const waiting = fleet.cli('wait', 'b', '--at', 'before-all', '--timeout', '20s');
  const made = await fleet.cli('point', 'before-all');
  assert.is(made.code, 0, JSON.stringify(made.json));
  assert.match(made.json.time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
  const { code, json } = await waiting;
  assert.is(code, 0, JSON.stringify(json));
  assert.equal(json, { node: 'b', lsn: made.json.lsn, reached: true });

  const again = await fleet.cli('point', 'before-all');
  assert.is(again.code, 4);
  assert.match(again.json.error.message, 'before-all exists already');

  const later = await fleet.cli('point', 'a.later_one');
  const points = await fleet.cli('points');
  assert.equal(points.json.points, [made.json, later.json]);
  assert.ok(later.json.lsn !== made.json.lsn);
});

looks('a wait ends at its timeout and says where the node stands', async () => {
  for (const at of ['1:F0/0', 'F0/0', '7:0/1', 'no-such-point']) {
    const { code, json } = await fleet.cli('wait', 'b', '--at', at, '--timeout', '300ms');
    assert.is(code, 5, at);
    assert.is(json.error.code, 'TIMED_OUT');
  }
  const leader = await fleet.cli('wait', 'a', '--at', 'before-all', '--timeout', '1s');
  assert.is(leader.code, 0);
});

looks('a follower whose agent is stopped falls behind by a known distance', async () => {
  await fleet.agent('b').stop();
  await fleet.sql('a', `INSERT INTO orders SELECT g, 'x' FROM generate_series(2, 500) g`);
  const status = await until((now) => (nodeOf(now, 'b').lagMs ?? 0) > 0);
  const b = nodeOf(status, 'b');
  assert.is(b.state, 'stopped');
  assert.ok((b.lagBytes ?? 0) > 10_000, String(b.lagBytes));
  assert.is(b.promotable, true);
});

looks('an agent shows its figures over HTTP, as they are', async () => {
  const agent = fleet.spawnCommand('run', 'b', '--http', '127.0.0.1:0');
  const patientUntilMs = Date.now() + 30_000;
  const wanted = [
    'understudy_role{node="b",role="follower"} 1',
    'understudy_epoch{node="b"} 1',
    'understudy_lag_seconds{node="b"} 0',
    'understudy_applied_rows_total{node="b"} 499',
    'understudy_kafka_unreachable{node="b"} 0',
  ];
  for (let text = ''; !wanted.every((line) => text.includes(`\n${line}\n`)); await sleep(100)) {
    assert.ok(Date.now() < patientUntilMs, `${text}\n${agent.log}`);
    const [base] = /http:\/\/[0-9.:]+/.exec(agent.log) ?? [];
    if (base !== undefined) text = await (await fetch(`${base}/metrics`)).text();
  }
  assert.is(await agent.stop(), 0, agent.log);
});

looks('a database or Kafka that is away costs that part, the registry nothing', async () => {
  const away = { b: { url: `postgres://x@${nobody}/x` } };
  const withoutB = await statusNow({ nodes: { a: { url: fleet.url('a') }, ...away } });
  assert.is(withoutB.leader, 'a');
  assert.is(nodeOf(withoutB, 'a').state, 'streaming');
  const b = nodeOf(withoutB, 'b');
  assert.is(b.state, 'down');
  assert.is(b.lsn, null);
  assert.match(b.why[0] ?? '', 'cannot connect');

  const withoutKafka = await statusNow({ kafka: { brokers: [nobody] } });
  assert.is(withoutKafka.leader, null);
  assert.is(withoutKafka.topic, null);
  assert.match(withoutKafka.stream ?? '', /./);
  assert.is(nodeOf(withoutKafka, 'a').state, 'streaming');
  assert.match(nodeOf(withoutKafka, 'b').why.join(), nobody);
  assert.is(nodeOf(withoutKafka, 'a').slot?.walStatus, 'reserved');
  assert.match(nodeOf(withoutKafka, 'b').lsn ?? '', /^1:/);
  assert.is(nodeOf(withoutKafka, 'b').lagMs, null);

  const withoutRegistry = await statusNow({ registry: { url: `http://${nobody}/` } });
  assert.is(withoutRegistry.topic, `${withoutRegistry.cluster}.changes`);
  assert.is(nodeOf(withoutRegistry, 'a').state, 'streaming');
});

looks('a point without an agent is told as one to come', async () => {
  await fleet.agent('a').kill();
  await fleet.sql('a', `SELECT understudy.point('to-come')`);
  const points = await fleet.cli('points');
  assert.is(points.json.points.length, 2);
  await fleet.startAgents();
  const { code } = await fleet.cli('wait', 'b', '--at', 'to-come');
  assert.is(code, 0);
});

looks('a leader that was replaced is fenced', async () => {
  await fleet.agent('a').kill();
  const failover = await fleet.cli('failover', 'b', '--allow-data-loss', '--reason', 'a test');
  assert.ok(failover.code === 0 || failover.code === 7, JSON.stringify(failover));
  const status = await until((now) => nodeOf(now, 'b').role === 'leader');
  assert.is(status.epoch, 2);
  assert.is(status.leader, 'b');
  const a = nodeOf(status, 'a');
  assert.is(a.state, 'fenced');
  assert.is(a.promotable, false);
  assert.is(a.exact, false);
  assert.match(
    a.why.join(),
    /its slot keeps .* of WAL and has no reader: drop the slot understudy_\w+_1/,
  );
  const lost = await fleet.cli('wait', 'b', '--at', '1:F0/0', '--timeout', '10s');
  assert.is(lost.code, 4);
  assert.match(lost.json.error.message, 'can never reach 1:F0/0');
  const kept = await fleet.cli('wait', 'b', '--at', 'before-all', '--timeout', '1s');
  assert.is(kept.code, 0);
  const verify = await fleet.cli('verify');
  assert.is(verify.code, 4);
  assert.match(verify.json.error.message, 'node a led before node b');
});

looks.run();
