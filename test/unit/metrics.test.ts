/**
 * The text that GET /metrics answers with: every line is of the format that Prometheus reads, the
 * unknown has no sample, and counters outlive a failed attempt.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { AgentFigures } from '../../src/agent/agent-figures.ts';
import type { WalReading } from '../../src/agent/wal-watch.ts';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { labelsText, metricsText } from '../../src/http/metrics.ts';
import { readinessOf } from '../../src/http/readiness.ts';
import { at, lsn, pointOf } from '../support/builders.ts';

const comment = /^# (?:HELP [a-z_]+ \S.*|TYPE [a-z_]+ (?:gauge|counter))$/;
const sample = /^([a-z_]+)\{([a-z]+="(?:[^"\\\n]|\\[\\"n])*",?)+\} (-?[0-9.]+(?:e[+-]?[0-9]+)?)$/;

/** Values by `name{labels}`; a line of another form fails the test. */
function parsed(text: string): Map<string, number> {
  assert.ok(text === '' || text.endsWith('\n'));
  const values = new Map<string, number>();
  const typed = new Set<string>();
  for (const line of text.split('\n').slice(0, -1)) {
    if (line.startsWith('#')) {
      assert.match(line, comment);
      if (line.startsWith('# TYPE')) typed.add(line.split(' ')[2] ?? '');
      continue;
    }
    const match = sample.exec(line);
    assert.ok(match !== null, `not a sample: ${line}`);
    assert.ok(typed.has(match?.[1] ?? ''), `no TYPE before ${line}`);
    const [key = ''] = line.split(' ');
    assert.not(values.has(key), `twice: ${key}`);
    values.set(key, Number(match?.[3]));
  }
  return values;
}

let look: WalReading = null;
let nowMs = 1_000_000;
let answeredMs: number | null = null;
const figuresOf = (node: string): AgentFigures =>
  new AgentFigures(node, () => nowMs, {
    get latest() {
      return look;
    },
    get answeredMs() {
      return answeredMs;
    },
  });

test.before.each(() => {
  look = null;
  nowMs = 1_000_000;
  answeredMs = null;
});

test('an agent that has just started has no figures yet', () => {
  const values = parsed(metricsText([figuresOf('a').read()]));
  assert.is(values.get('understudy_role{node="a",role="leader"}'), 0);
  assert.is(values.get('understudy_role{node="a",role="follower"}'), 0);
  assert.is(values.get('understudy_failed_attempts_total{node="a"}'), 0);
  for (const unknown of ['epoch', 'lsn_bytes', 'lag_seconds', 'lag_bytes', 'slot_lost']) {
    assert.not(values.has(`understudy_${unknown}{node="a"}`), unknown);
  }
});

const reading = { relation: 'public.a', after: ['7'], rows: 40, estimate: 100, since: 0 };
const readRows = 'understudy_existing_rows_read{node="a",table="public.a"}';

test('a leader reports what it published, what waits, and what Postgres keeps', () => {
  const figures = figuresOf('a');
  const slot = { name: 's', active: true, walStatus: 'reserved' };
  look = { slot: { ...slot, retainedBytes: 700, unconfirmedBytes: 600, safeBytes: 300 } };
  figures.onLeading(at(3, 50), [reading]);
  assert.is(parsed(metricsText([figures.read()])).get(readRows), 40);
  figures.onPublished(pointOf({ epoch: 3, upto: lsn(90), commitTimeMicros: 2_500_000n }), 7);
  figures.onPublished(pointOf({ epoch: 3, upto: lsn(100), commitTimeMicros: 2_500_000n }), 0);
  const values = parsed(metricsText([figures.read(), figuresOf('b').read()]));
  const a = (name: string): number | undefined => values.get(`understudy_${name}{node="a"}`);
  assert.is(values.get('understudy_role{node="a",role="leader"}'), 1);
  assert.is(a('epoch'), 3);
  assert.is(a('lsn_bytes'), 100);
  assert.is(a('commit_timestamp_seconds'), 2.5);
  assert.is(a('published_batches_total'), 2);
  assert.is(a('published_records_total'), 7);
  assert.is(a('unfinished_tables'), 0);
  assert.not(values.has(readRows));
  assert.is(a('lag_bytes'), 600);
  assert.is(a('slot_retained_wal_bytes'), 700);
  assert.is(a('slot_safe_wal_bytes'), 300);
  assert.is(a('slot_lost'), 0);
  assert.is(values.get('understudy_published_records_total{node="b"}'), 0);

  look = {
    slot: { ...slot, walStatus: 'lost', retainedBytes: null, unconfirmedBytes: 1, safeBytes: null },
  };
  assert.is(parsed(metricsText([figures.read()])).get('understudy_slot_lost{node="a"}'), 1);
  look = { slot: null };
  assert.is(parsed(metricsText([figures.read()])).get('understudy_slot_lost{node="a"}'), 1);
});

test('bytes are counted as they are sent', async () => {
  const figures = figuresOf('a');
  const sent: number[] = [];
  const producer = figures.counting({
    open: async () => undefined,
    send: async (records) => void sent.push(records.length),
    commit: async () => [],
    close: async () => undefined,
  });
  const record = { partition: 0, headers: {}, key: Buffer.from('1234') };
  await producer.send([
    { ...record, value: null },
    { ...record, value: Buffer.from('56') },
  ]);
  assert.equal(sent, [2]);
  assert.is(figures.read().publishedBytes, 10);
});

test('a follower is as late as its last transaction, and on time once it has them all', () => {
  const figures = figuresOf('b');
  const follower = {
    position: { at: at(3, 90), commitTimeMicros: 990_000_000n, unfinished: ['public.a'] },
    caughtUp: false,
  };
  figures.onFollowing(follower);
  figures.onApplied(5);
  const late = parsed(metricsText([figures.read()]));
  assert.is(late.get('understudy_role{node="b",role="follower"}'), 1);
  assert.is(late.get('understudy_lag_seconds{node="b"}'), 10);
  assert.is(late.get('understudy_lsn_bytes{node="b"}'), 90);
  assert.is(late.get('understudy_unfinished_tables{node="b"}'), 1);
  assert.is(late.get('understudy_applied_rows_total{node="b"}'), 5);
  follower.caughtUp = true;
  assert.is(parsed(metricsText([figures.read()])).get('understudy_lag_seconds{node="b"}'), 0);
});

test('a failure is counted with its code, and what was counted stays', () => {
  const figures = figuresOf('a');
  figures.onLeading(at(1, 1), []);
  figures.onPublished(pointOf({ epoch: 1, upto: lsn(2), commitTimeMicros: 1n }), 3);
  figures.onFailed(new UnderstudyError('KAFKA_UNREACHABLE', 'no broker', 'start one'));
  const away = parsed(metricsText([figures.read()]));
  assert.is(away.get('understudy_kafka_unreachable{node="a"}'), 1);
  assert.is(away.get('understudy_role{node="a",role="leader"}'), 0);
  assert.is(away.get('understudy_failed_attempts_total{node="a"}'), 1);
  assert.is(away.get('understudy_published_records_total{node="a"}'), 3);
  const failure = 'understudy_last_failure_timestamp_seconds{node="a",code="KAFKA_UNREACHABLE"}';
  assert.is(away.get(failure), 1000);
  figures.onLeading(at(1, 2), []);
  const back = parsed(metricsText([figures.read()]));
  assert.is(back.get('understudy_kafka_unreachable{node="a"}'), 0);
  assert.is(back.get(failure), 1000);
});

test('a node is ready in its role, while its servers answer', async () => {
  const figures = figuresOf('b');
  const reason = (): string | null => readinessOf([figures.read()], false).nodes[0]?.reason ?? null;
  assert.match(reason() ?? '', 'is starting');
  figures.onFailed(new UnderstudyError('KAFKA_UNREACHABLE', 'no broker', 'start one'));
  assert.match(reason() ?? '', 'since KAFKA_UNREACHABLE: no broker');
  const position = { at: at(3, 90), commitTimeMicros: 1n, unfinished: [] };
  figures.onFollowing({ position, caughtUp: true });
  assert.equal(readinessOf([figures.read()], false), {
    ready: true,
    nodes: [{ node: 'b', role: 'follower', ready: true, reason: null }],
  });
  assert.not(readinessOf([figures.read(), figuresOf('c').read()], false).ready, 'one is not ready');
  assert.not(readinessOf([figures.read()], true).ready, 'the process is stopping');
  let answer = (): void => undefined;
  const fetched = figures
    .timing({
      watermarks: async () => [],
      fetch: () =>
        new Promise((resolve) => {
          answer = () => resolve([]);
        }),
      close: async () => undefined,
    })
    .fetch(new Map(), { maxWaitMs: 500 });
  assert.is(reason(), null);
  nowMs += 11_000;
  assert.match(reason() ?? '', 'Kafka has not answered for 11 s');
  answer();
  await fetched;
  assert.is(reason(), null, 'it waits for nothing');
  nowMs += 10_000;
  assert.match(reason() ?? '', 'its Postgres has not answered for 21 s');
  answeredMs = nowMs - 1;
  assert.is(reason(), null);
  figures.onLeading(at(3, 90), []);
  look = { slot: null };
  assert.match(reason() ?? '', 'slot is lost');
  figures.onEnded();
  assert.match(reason() ?? '', 'neither leads nor follows');
});

test('quotes, backslashes and line ends in a label are escaped', () => {
  assert.is(labelsText({ a: 'x"y\\z\n' }), '{a="x\\"y\\\\z\\n"}');
});

test.run();
