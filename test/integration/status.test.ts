/**
 * The commands that look and name, against agents that run, are stopped, and are gone: `status`
 * always answers, `point`, `points` and `wait` speak of the same LSNs.
 */
// time-limit: 480s
import { spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { FleetStatus, NodeStatus } from '../../src/agent/status-of.ts';
import { nobody, query } from '../support/checked-fleet.ts';
import { RunningFleet } from '../support/running-fleet.ts';

interface Failed {
  readonly error: { readonly code: string; readonly message: string; readonly hint: string };
}

interface Point {
  readonly label: string;
  readonly lsn: string;
  readonly time: string;
}

const looks = suite('status, points, wait');
let fleet: RunningFleet;

looks.before(async () => {
  fleet = await RunningFleet.begin(2, ['CREATE TABLE orders (id int PRIMARY KEY, note text)']);
});

looks.after(async () => {
  await fleet.close();
});

function nodeOf({ nodes }: FleetStatus, name: string): NodeStatus {
  const node = nodes.find((one) => one.name === name);
  if (node === undefined) throw new Error(`${name} is not in the status`);
  return node;
}

async function statusNow(changes: Parameters<RunningFleet['askAs']>[0] = {}): Promise<FleetStatus> {
  const { exit, value, stderr } = await fleet.askAs<FleetStatus>(changes, 'status');
  assert.is(exit, 0, stderr);
  assert.is(stderr, '');
  return value;
}

looks('before any agent runs the fleet is stopped, and that is told', async () => {
  const status = await statusNow();
  assert.is(status.cluster, fleet.fleet.cluster);
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
  await fleet.start('a', 'b');
  await query(fleet.url('a'), `INSERT INTO orders VALUES (1, 'one')`);
  const status = await fleet.until((now) => nodeOf(now, 'b').lagBytes === 0);
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
  const child = spawn(process.execPath, fleet.words('--json', 'status', '--watch'));
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  let output = '';
  for await (const text of child.stdout.setEncoding('utf8')) {
    output += String(text);
    if (output.split('\n').length > 3) break;
  }
  child.kill('SIGINT');
  assert.is(await ended, 0);
  const [first = '', second = ''] = output.split('\n');
  assert.is((JSON.parse(first) as FleetStatus).leader, 'a');
  assert.is((JSON.parse(second) as FleetStatus).leader, 'a');
});

looks('a point is made once, listed, and waited for', async () => {
  const waiting = fleet.ask<{ lsn: string }>('wait', 'b', '--at', 'before-all', '--timeout', '20s');
  const made = await fleet.ask<Point>('point', 'before-all');
  assert.is(made.exit, 0, JSON.stringify(made.value));
  assert.match(made.value.time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
  const { exit, value } = await waiting;
  assert.is(exit, 0, JSON.stringify(value));
  assert.equal(value, { node: 'b', lsn: made.value.lsn, reached: true });

  const again = await fleet.ask<Failed>('point', 'before-all');
  assert.is(again.exit, 4);
  assert.match(again.value.error.message, 'before-all exists already');

  const later = await fleet.ask<Point>('point', 'a.later_one');
  const points = await fleet.ask<{ points: Point[] }>('points');
  assert.equal(points.value.points, [made.value, later.value]);
  assert.ok(later.value.lsn !== made.value.lsn);
});

looks('a wait ends at its timeout and says where the node stands', async () => {
  for (const at of ['1:F0/0', 'F0/0', '7:0/1', 'no-such-point']) {
    const { exit, value } = await fleet.ask<Failed>('wait', 'b', '--at', at, '--timeout', '300ms');
    assert.is(exit, 5, at);
    assert.is(value.error.code, 'TIMED_OUT');
  }
  const leader = await fleet.ask('wait', 'a', '--at', 'before-all', '--timeout', '1s');
  assert.is(leader.exit, 0);
});

looks('a follower whose agent is stopped falls behind by a known distance', async () => {
  await fleet.stop('b');
  await query(fleet.url('a'), `INSERT INTO orders SELECT g, 'x' FROM generate_series(2, 500) g`);
  const status = await fleet.until((now) => (nodeOf(now, 'b').lagMs ?? 0) > 0);
  const b = nodeOf(status, 'b');
  assert.is(b.state, 'stopped');
  assert.ok((b.lagBytes ?? 0) > 10_000, String(b.lagBytes));
  assert.is(b.promotable, true);
});

looks('an agent shows its figures over HTTP, as they are', async () => {
  const child = spawn(process.execPath, fleet.words('run', 'b', '--http', '127.0.0.1:0'));
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  let output = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  const patientUntilMs = Date.now() + 30_000;
  const wanted = [
    'understudy_role{node="b",role="follower"} 1',
    'understudy_epoch{node="b"} 1',
    'understudy_lag_seconds{node="b"} 0',
    'understudy_applied_rows_total{node="b"} 499',
    'understudy_kafka_unreachable{node="b"} 0',
  ];
  for (let text = ''; !wanted.every((line) => text.includes(`\n${line}\n`)); await sleep(100)) {
    assert.ok(Date.now() < patientUntilMs, `${text}\n${output}`);
    const [base] = /http:\/\/[0-9.:]+/.exec(output) ?? [];
    if (base !== undefined) text = await (await fetch(`${base}/metrics`)).text();
  }
  child.kill('SIGTERM');
  assert.is(await ended, 0, output);
});

looks('a database or Kafka that is away costs that part, the registry nothing', async () => {
  const [a = ''] = fleet.fleet.urls;
  const withoutB = await statusNow({ urls: [a, `postgres://x@${nobody}/x`] });
  assert.is(withoutB.leader, 'a');
  assert.is(nodeOf(withoutB, 'a').state, 'streaming');
  const b = nodeOf(withoutB, 'b');
  assert.is(b.state, 'down');
  assert.is(b.lsn, null);
  assert.match(b.why[0] ?? '', 'cannot connect');

  const withoutKafka = await statusNow({ brokers: [nobody] });
  assert.is(withoutKafka.leader, null);
  assert.is(withoutKafka.topic, null);
  assert.match(withoutKafka.stream ?? '', /./);
  assert.is(nodeOf(withoutKafka, 'a').state, 'streaming');
  assert.match(nodeOf(withoutKafka, 'b').why.join(), nobody);
  assert.is(nodeOf(withoutKafka, 'a').slot?.walStatus, 'reserved');
  assert.match(nodeOf(withoutKafka, 'b').lsn ?? '', /^1:/);
  assert.is(nodeOf(withoutKafka, 'b').lagMs, null);

  const withoutRegistry = await statusNow({ registryUrl: `http://${nobody}/` });
  assert.is(withoutRegistry.topic, `${withoutRegistry.cluster}.changes`);
  assert.is(nodeOf(withoutRegistry, 'a').state, 'streaming');
});

looks('a point without an agent is told as one to come', async () => {
  await fleet.stop('a', 'SIGKILL');
  await query(fleet.url('a'), `SELECT understudy.point('to-come')`);
  const points = await fleet.ask<{ points: Point[] }>('points');
  assert.is(points.value.points.length, 2);
  await fleet.start('a', 'b');
  const { exit } = await fleet.ask('wait', 'b', '--at', 'to-come');
  assert.is(exit, 0);
});

looks('a leader that was replaced is fenced', async () => {
  await fleet.stop('a', 'SIGKILL');
  const failover = await fleet.ask('failover', 'b', '--allow-data-loss', '--reason', 'a test');
  assert.ok(failover.exit === 0 || failover.exit === 7, JSON.stringify(failover));
  const status = await fleet.until((now) => nodeOf(now, 'b').role === 'leader');
  assert.is(status.epoch, 2);
  assert.is(status.leader, 'b');
  const a = nodeOf(status, 'a');
  assert.is(a.state, 'fenced');
  assert.is(a.promotable, false);
  assert.is(a.exact, false);
  assert.match(a.why.join(), /its slot keeps .* of WAL for nobody: drop the slot understudy_\w+_1/);
  const lost = await fleet.ask<Failed>('wait', 'b', '--at', '1:F0/0', '--timeout', '10s');
  assert.is(lost.exit, 4);
  assert.match(lost.value.error.message, 'can never reach 1:F0/0');
  const kept = await fleet.ask('wait', 'b', '--at', 'before-all', '--timeout', '1s');
  assert.is(kept.exit, 0);
  const verify = await fleet.ask<Failed>('verify');
  assert.is(verify.exit, 4);
  assert.match(verify.value.error.message, 'node a led before node b');
});

looks.run();
