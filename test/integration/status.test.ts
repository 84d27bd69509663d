/**
 * `status`, `point`, `points` and `wait` against agents that run, are stopped and killed: `status`
 * always answers, and all of them mean the same LSNs. Tests run in order, on one fleet.
 */
// time-limit: 480s
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { FleetStatus, NodeStatus } from '../../src/fleet/status/node-status.ts';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { unusedAddress } from '../support/fleet-options.ts';
import { KafkaProxy } from '../support/kafka-proxy.ts';
import { TcpProxy } from '../support/tcp-proxy.ts';

const verbs = suite('status, points, wait');
let fleet: Fleet;

verbs.before(async () => {
  fleet = await startFleet({ tables: 'CREATE TABLE orders (id int PRIMARY KEY, note text)' });
});

verbs.after(async () => {
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
  const status = await fleet.status(changes['kafka'] === undefined);
  await fleet.configure(config);
  return status;
}

verbs('before an agent runs the nodes are shown as stopped', async () => {
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

verbs('agents that run are streaming', async () => {
  await fleet.startAgents();
  await fleet.sql('a', `INSERT INTO orders VALUES (1, 'one')`);
  await fleet.shows('b', 'no lag', ({ lagBytes }) => lagBytes === 0);
  const answer = await fleet.cli('status');
  assert.is(answer.stderr, '', 'nothing but the answer with --json');
  const status: FleetStatus = answer.json;
  const { lsn, slot, lagBytes, lagMs, ...a } = nodeOf(status, 'a');
  assert.is(lagBytes, slot?.unpublishedBytes, 'what its Postgres logs now and then counts');
  assert.is(lagMs, lagBytes === 0 ? 0 : null);
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
    exact: true,
    promotable: false,
    agentError: null,
    why: [],
    schemaFormat: 2,
  });
  const b = nodeOf(status, 'b');
  assert.is(b.role, 'follower');
  assert.is(b.state, 'streaming');
  assert.is(b.exact, true);
  assert.is(b.promotable, true);
  assert.is(b.slot, null);
});

verbs('a watch runs until it is stopped, one object a line', async () => {
  const watch = fleet.spawnCommand('--json', 'status', '--watch');
  await watch.logged(/\n.*\n/);
  assert.is(await watch.stop('SIGINT'), 0);
  const [first = '', second = ''] = watch.log.split('\n');
  assert.is((JSON.parse(first) as FleetStatus).leader, 'a');
  assert.is((JSON.parse(second) as FleetStatus).leader, 'a');
});

verbs('a point is created once, listed, and waited for', async () => {
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

verbs('a wait ends at its timeout with TIMED_OUT', async () => {
  for (const at of ['1:F0/0', 'F0/0', '7:0/1', 'no-such-point']) {
    const { code, json } = await fleet.cli('wait', 'b', '--at', at, '--timeout', '300ms');
    assert.is(code, 5, at);
    assert.is(json.error.code, 'TIMED_OUT');
  }
  const leader = await fleet.cli('wait', 'a', '--at', 'before-all', '--timeout', '1s');
  assert.is(leader.code, 0);
});

verbs('a follower whose agent is stopped has a known lag', async () => {
  await fleet.agent('b').stop();
  await fleet.sql('a', `INSERT INTO orders SELECT g, 'x' FROM generate_series(2, 500) g`);
  const b = await fleet.shows('b', 'a lag', ({ lagMs }) => (lagMs ?? 0) > 0);
  assert.is(b.state, 'stopped');
  assert.ok((b.lagBytes ?? 0) > 10_000, String(b.lagBytes));
  assert.is(b.promotable, true);
});

verbs('what the topic lacks is the lag of the leader', async () => {
  await fleet.agent('a').stop();
  await fleet.sql(
    'a',
    `INSERT INTO orders SELECT g, repeat('x', 50) FROM generate_series(501, 2000) g`,
  );
  const a = await fleet.nodeStatus('a');
  assert.ok((a.lagBytes ?? 0) > 100_000, String(a.lagBytes));
  assert.equal(a.why, ['no agent runs: understudy run a'], 'it was stopped, and left no error');
});

verbs('the error that ended an agent is in the status until the node is in its role', async () => {
  const { config } = fleet;
  const kafka = config['kafka'] as object;
  await fleet.configure({ ...config, kafka: { ...kafka, partitions: 3 } });
  const agent = fleet.spawnAgent('a');
  assert.is(await agent.exitCode(), 4, agent.log);
  await fleet.configure(config);
  const { state, why, agentError } = await fleet.nodeStatus('a');
  assert.is(state, 'stopped');
  assert.is(agentError?.code, 'TOPIC_MISMATCH');
  assert.match(agentError?.time ?? '', /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  assert.match(
    why.join(),
    /^no agent runs; the last one failed at .* with TOPIC_MISMATCH: .*partitions/,
  );
  await fleet.startAgent('a');
  await fleet.shows('a', 'no error', (node) => node.agentError === null);
});

verbs('the log of a service is JSON alone, and has its fatal error once', async () => {
  const { config } = fleet;
  await fleet.configure({ ...config, kafka: { ...(config['kafka'] as object), partitions: 3 } });
  const agent = fleet.spawnCommand('run', 'b', '--http', '127.0.0.1:0');
  assert.is(await agent.exitCode(), 4, agent.log);
  await fleet.configure(config);
  const lines = agent.log
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
  const fatal = lines.filter(({ error }) => error?.code === 'TOPIC_MISMATCH');
  assert.is(fatal.length, 1, agent.log);
  assert.match(fatal[0].error.hint, /./);
});

verbs('an agent serves its metrics over HTTP', async () => {
  const agent = fleet.spawnCommand('run', 'b', '--http', '127.0.0.1:0');
  const wanted = [
    'understudy_role{node="b",role="follower"} 1',
    'understudy_epoch{node="b"} 1',
    'understudy_lag_seconds{node="b"} 0',
    'understudy_applied_rows_total{node="b"} 1999',
    'understudy_kafka_unreachable{node="b"} 0',
  ];
  const metrics = async (): Promise<string> => {
    const [base] = /http:\/\/[0-9.:]+/.exec(agent.log) ?? [];
    return base === undefined ? agent.log : (await fetch(`${base}/metrics`)).text();
  };
  await fleet.until('the metrics', metrics, {
    ...{ pollMs: 100, reached: (text) => wanted.every((line) => text.includes(`\n${line}\n`)) },
  });
  assert.is(await agent.stop(), 0, agent.log);
});

verbs(
  '/readyz is 200 only while the node is in its role; /livez does not depend on it',
  async () => {
    const postgres = await TcpProxy.start(new URL(fleet.url('b')).host);
    const kafka = await KafkaProxy.start(fleet.brokers);
    const { config } = fleet;
    const nodes = { a: { url: fleet.url('a') }, b: { url: postgres.through(fleet.url('b')) } };
    await fleet.configure({
      ...config,
      nodes,
      kafka: { ...(config['kafka'] as object), brokers: kafka.addresses },
    });
    const agent = fleet.spawnCommand('run', 'b', '--http', '127.0.0.1:0');
    await agent.logged(/serving the status/);
    await fleet.configure(config);
    const [base = ''] = /http:\/\/[0-9.:]+/.exec(agent.log) ?? [];
    const answers = (code: number, reason: RegExp): Promise<string> => {
      const ask = async (): Promise<string> => {
        const answer = await fetch(`${base}/readyz`);
        return `${answer.status} ${await answer.text()}`;
      };
      return fleet.until(`/readyz answers ${code}`, ask, {
        ...{ pollMs: 200, reached: (text) => text.startsWith(`${code} `) && reason.test(text) },
      });
    };
    try {
      await answers(200, /"node":"b","role":"follower","ready":true,"reason":null/);
      for (const link of kafka.links) link.blackhole();
      await answers(503, /"reason":"Kafka has not answered for/);
      assert.is((await fetch(`${base}/livez`)).status, 200);
      for (const link of kafka.links) link.heal();
      await answers(200, /"ready":true/);
      postgres.refuse();
      postgres.reset();
      await answers(503, /"role":null,"ready":false,"reason":"its agent neither leads nor follows/);
      assert.is((await fetch(`${base}/livez`)).status, 200);
      postgres.heal();
      await answers(200, /"ready":true/);
    } finally {
      await agent.kill();
      await Promise.all([postgres.close(), kafka.close()]);
    }
  },
);

verbs('a status without a database or Kafka lacks that part alone', async () => {
  const away = { b: { url: `postgres://x@${unusedAddress}/x` } };
  const withoutB = await statusNow({ nodes: { a: { url: fleet.url('a') }, ...away } });
  assert.is(withoutB.leader, 'a');
  assert.is(nodeOf(withoutB, 'a').state, 'streaming');
  const b = nodeOf(withoutB, 'b');
  assert.is(b.state, 'down');
  assert.is(b.lsn, null);
  assert.match(b.why[0] ?? '', 'cannot connect');

  const withoutKafka = await statusNow({ kafka: { brokers: [unusedAddress] } });
  assert.is(withoutKafka.leader, null);
  assert.is(withoutKafka.topic, null);
  assert.match(withoutKafka.stream ?? '', /./);
  assert.is(nodeOf(withoutKafka, 'a').state, 'streaming');
  assert.match(nodeOf(withoutKafka, 'b').why.join(), unusedAddress);
  assert.is(nodeOf(withoutKafka, 'a').slot?.walStatus, 'reserved');
  assert.match(nodeOf(withoutKafka, 'b').lsn ?? '', /^1:/);
  assert.is(nodeOf(withoutKafka, 'b').lagMs, null);

  const withoutRegistry = await statusNow({ registry: { url: `http://${unusedAddress}/` } });
  assert.is(withoutRegistry.topic, `${withoutRegistry.cluster}.changes`);
  assert.is(nodeOf(withoutRegistry, 'a').state, 'streaming');
});

verbs('a point that no agent has published is waited for', async () => {
  await fleet.agent('a').kill();
  await fleet.sql('a', `SELECT understudy.point('pending')`);
  const points = await fleet.cli('points');
  assert.is(points.json.points.length, 2);
  await fleet.startAgents();
  const { code } = await fleet.cli('wait', 'b', '--at', 'pending');
  assert.is(code, 0);
});

verbs('a leader that was replaced is shown as fenced', async () => {
  await fleet.agent('a').kill();
  const failover = await fleet.cli('failover', 'b', '--allow-data-loss', '--reason', 'a test');
  assert.ok(failover.code === 0 || failover.code === 7, JSON.stringify(failover));
  await fleet.shows('b', 'its role', ({ role }) => role === 'leader');
  const status = await fleet.status();
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

verbs.run();
