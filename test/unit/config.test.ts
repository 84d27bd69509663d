/**
 * understudy.yaml: what is accepted, what is refused with which line and hint, when variables are
 * expanded, and that no secret is in any error.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { formatDurationMs, parseDurationMs } from '../../src/change/amounts.ts';
import { Config, loadConfig } from '../../src/config/config.ts';
import { expandVariables } from '../../src/config/expand.ts';
import { editDistance, nearestWord } from '../../src/config/suggest.ts';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';

const minimal = `
cluster: shop
nodes:
  a: { url: "\${A_URL}" }
  b: { url: "postgres://u:s3cr%40t@b.example:5433/shop" }
kafka: { brokers: ["k1:9092", "k2:9092"] }
registry: { url: http://registry:8081/apis/ccompat/v7/ }
`;

function configOf(text: string, environment: Record<string, string> = {}): Config {
  return new Config({ text, name: 'understudy.yaml', directory: '/nowhere', environment });
}

function refusal(act: () => unknown): UnderstudyError {
  try {
    act();
  } catch (error) {
    if (error instanceof UnderstudyError) return error;
    throw error;
  }
  throw new Error('was not refused');
}

/** The refusal of the minimal file with one line put in at the top. */
function refusalWith(line: string): UnderstudyError {
  return refusal(() => configOf(`${line}\n${minimal.trimStart()}`));
}

test('a minimal file has the defaults of this version', () => {
  const config = configOf(minimal);
  assert.is(config.cluster, 'shop');
  assert.equal(config.nodeNames, ['a', 'b']);
  assert.is(config.tables, null);
  assert.equal(config.topic, { partitions: 1, replication: null, overrides: {} });
  assert.is(config.pointsEveryMs, 1000);
  assert.is(config.pgDump, 'pg_dump');
  assert.not(config.isSchemaManual);
  assert.is(config.maintenanceDatabase, 'postgres');
  assert.equal(config.kafka(), { brokers: ['k1:9092', 'k2:9092'], ssl: false, sasl: null });
  assert.equal(config.registry(), { url: 'http://registry:8081/apis/ccompat/v7', auth: null });
});

test('every key of this version is read', () => {
  const config = configOf(
    `
cluster: shop_2
nodes: { a: { url: "postgres:///shop?host=/tmp", delay: 15m } }
tables: ["public.*", "sales.order_*"]
kafka:
  brokers: ["\${BROKERS}"]
  partitions: 8
  replication: 3
  topic: { segment.ms: 60000, retention.bytes: "-1", cleanup.policy: compact }
  ssl: { ca: "-----BEGIN CERTIFICATE-----", rejectUnauthorized: false }
  sasl: { mechanism: scram-sha-512, username: u, password: "\${KAFKA_PASSWORD}" }
  compression: none
  producer: kafkajs
registry: { url: "https://registry", auth: { username: r, password: "\${R:-fallback}" } }
points: { every: 250ms }
durability: async
ddl: manual
keyless: append
rebuild: manual
pgDump: "\${PG_BIN:-/usr/lib/postgresql/15/bin}/pg_dump"
maintenanceDatabase: admin
`,
    { BROKERS: 'k1:9092, [::1]:9093', KAFKA_PASSWORD: 'kafkapass' },
  );
  assert.equal(config.tables, ['public.*', 'sales.order_*']);
  assert.equal(config.topic.overrides, {
    'segment.ms': '60000',
    'retention.bytes': '-1',
    'cleanup.policy': 'compact',
  });
  assert.equal([config.topic.partitions, config.topic.replication], [8, 3]);
  assert.is(config.keyless, 'append');
  assert.is(configOf(minimal).keyless, 'refuse');
  assert.equal(config.kafka(), {
    brokers: ['k1:9092', '[::1]:9093'],
    ssl: { ca: '-----BEGIN CERTIFICATE-----', rejectUnauthorized: false },
    sasl: { mechanism: 'scram-sha-512', username: 'u', password: 'kafkapass' },
  });
  assert.equal(config.registry().auth, { username: 'r', password: 'fallback' });
  assert.is(config.pointsEveryMs, 250);
  assert.is(config.pgDump, '/usr/lib/postgresql/15/bin/pg_dump');
  assert.ok(config.isSchemaManual);
  assert.is(config.maintenanceDatabase, 'admin');
  assert.is(config.nodeUrl('a'), 'postgres:///shop?host=/tmp');
});

test('only what is used needs its variables', () => {
  const config = configOf(minimal);
  assert.match(config.nodeUrl('b'), 'b.example');
  const error = refusal(() => config.nodeUrl('a'));
  assert.is(error.code, 'CONFIG_INVALID');
  assert.match(error.message, 'A_URL');
  assert.match(error.message, 'nodes.a.url');
  const set = configOf(minimal, { A_URL: 'postgresql://localhost/shop' });
  assert.is(set.nodeUrl('a'), 'postgresql://localhost/shop');
});

test('variables expand as in a shell', () => {
  const environment = { SET: 'x', EMPTY: '' };
  const expand = (raw: string) => expandVariables(raw, 'key', environment);
  assert.is(expand('a ${SET} b${SET}$SET$'), 'a x bx$SET$');
  assert.is(expand('[${EMPTY}]'), '[]');
  assert.is(expand('${EMPTY:-d} ${NOPE:-} ${NOPE:-a:-b}'), 'd  a:-b');
  assert.is(expand('$${SET} ${SET}'), '${SET} x');
  assert.match(refusal(() => expand('${SET')).message, 'not a variable');
  assert.match(refusal(() => expand('${}')).message, 'not a variable');
  assert.match(refusal(() => expand('${constructor}')).message, 'constructor');
});

test('an unknown key is refused with its line and what was probably meant', () => {
  const error = refusalWith('durabilty: async');
  assert.is(error.code, 'CONFIG_INVALID');
  assert.is(error.exit, 1);
  assert.match(error.message, 'understudy.yaml:1: unknown key durabilty');
  assert.match(error.hint, 'Did you mean durability?');
  const nested = refusal(() => configOf(minimal.replace('{ brokers', '{ partitons: 2, brokers')));
  assert.match(nested.message, 'understudy.yaml:6: unknown key kafka.partitons');
  assert.match(nested.hint, 'Did you mean kafka.partitions?');
  const moved = refusalWith('partitions: 4');
  assert.match(moved.hint, 'Did you mean kafka.partitions?');
  const inNode = refusal(() => configOf(minimal.replace('a: { url', 'a: { urls: x, url')));
  assert.match(inNode.message, 'unknown key nodes.a.urls');
  assert.match(inNode.hint, 'nodes.a.url?');
  const inSsl = refusal(() => configOf(minimal.replace('{ brokers', '{ ssl: { cas: x }, brokers')));
  assert.match(inSsl.message, 'unknown key kafka.ssl.cas');
  assert.match(inSsl.hint, 'kafka.ssl.ca?');
});

test('a misspelt key comes before the missing one that it makes', () => {
  const top = refusal(() => configOf(minimal.replace('kafka:', 'kafak:')));
  assert.is(top.message, 'understudy.yaml:6: unknown key kafak');
  assert.match(top.hint, /^Did you mean kafka\?/);
  const nested = refusal(() => configOf(minimal.replace('brokers:', 'borkers:')));
  assert.is(nested.message, 'understudy.yaml:6: unknown key kafka.borkers');
  assert.match(nested.hint, 'Did you mean kafka.brokers?');
  const two = refusal(() =>
    configOf(minimal.replace('kafka:', 'kafak:').replace(/registry: .*/, '')),
  );
  assert.is(two.message, 'understudy.yaml:6: unknown key kafak (and 1 more)');
});

test('wrong values are refused with their line', () => {
  const cases: readonly (readonly [string, string])[] = [
    ['points: { every: 50ms }', '1: points.every must be in 100ms to 1h'],
    ['points: { every: 1 }', '1: points.every must be a duration'],
    ['points: { every: soon }', '1: points.every must be a duration'],
    ['tables: []', '1: tables must hold at least one pattern'],
    ['tables: [orders]', '1: tables.0 must be schema.table'],
    ['durability: maybe', '1: durability must be async, log or apply:N'],
    ['ddl: yes', '1: ddl must be replicate, manual or refuse'],
    ['pgDump: 5', '1: pgDump must be a text'],
  ];
  for (const [line, message] of cases) assert.match(refusalWith(line).message, message);
  const kafka = (keys: string) =>
    refusal(() => configOf(minimal.replace('{ brokers', `{ ${keys}, brokers`))).message;
  assert.match(kafka('partitions: 0'), 'kafka.partitions must be at least 1');
  assert.match(kafka('partitions: 257'), 'kafka.partitions must be at most 256');
  assert.match(kafka('partitions: 1.5'), 'kafka.partitions must be a whole number');
  assert.match(kafka('topic: { cleanup.policy: delete }'), 'must stay compact');
  assert.match(kafka('topic: { message.timestamp.type: CreateTime }'), 'must stay LogAppendTime');
  assert.match(kafka('sasl: { mechanism: gssapi, username: u, password: p }'), 'mechanism must be');
  assert.match(kafka('sasl: { mechanism: plain, username: u }'), 'kafka.sasl.password is missing');
  assert.match(kafka('ssl: { ca: 5 }'), 'kafka.ssl.ca must be a text');
  assert.match(kafka('ssl: maybe'), 'kafka.ssl has the wrong form');
  const edited = (from: string, to: string) =>
    refusal(() => configOf(minimal.replace(from, to))).message;
  assert.match(edited('cluster: shop', 'cluster: Shop'), '2: cluster must be 1 to 40');
  assert.match(edited('cluster: shop', ''), 'cluster is missing');
  assert.match(edited('  b:', '  B:'), '5: nodes.B must be 1 to 32');
  assert.match(edited('brokers: ["k1:9092", "k2:9092"]', 'brokers: []'), 'at least one broker');
  assert.match(refusal(() => configOf('')).message, 'the file must be');
  assert.match(refusal(() => configOf('nodes: {}')).message, 'more)');
});

test('a delay is shorter than the time for which the topic keeps every change', () => {
  const delayed = (delay: string, topic = '{}'): string =>
    minimal
      .replace('a: { url', `a: { delay: ${delay}, url`)
      .replace('{ brokers', `{ topic: ${topic}, brokers`);
  assert.is(configOf(delayed('23h')).delayMs('a'), 23 * 3_600_000);
  assert.is(configOf(minimal).delayMs('a'), 0);
  const error = refusal(() => configOf(delayed('24h')));
  assert.is(error.code, 'CONFIG_INVALID');
  assert.match(error.message, '4: nodes.a.delay must be less than min.compaction.lag.ms');
  const longer = '{ min.compaction.lag.ms: 172800001 }';
  assert.is(configOf(delayed('2d', longer)).delayMs('a'), 2 * 86_400_000);
  const shorter = '{ min.compaction.lag.ms: 60000 }';
  assert.match(refusal(() => configOf(delayed('1m', shorter))).message, 'of the topic, 1m');
});

test('a follower that was offline too long is rebuilt, unless the file excludes it', () => {
  assert.is(configOf(minimal).rebuild, 'swap');
  assert.is(configOf(`rebuild: in-place\n${minimal}`).rebuild, 'in-place');
  assert.is(configOf(`rebuild: manual\n${minimal}`).rebuild, 'manual');
  assert.is(refusalWith('rebuild: sometimes').code, 'CONFIG_INVALID');
});

test('schema changes are refused at the client where the file says so', () => {
  assert.not(configOf(minimal).refusesDdl);
  const refusing = configOf(`ddl: refuse\n${minimal}`);
  assert.ok(refusing.refusesDdl);
  assert.not(refusing.isSchemaManual);
});

test('what later versions bring is refused by name', () => {
  const lines = ['durability: log', 'durability: apply:2', 'ddl: replicate'];
  for (const line of lines) {
    const error = refusalWith(line);
    assert.is(error.code, 'NOT_IN_THIS_VERSION', line);
    assert.match(error.message, `understudy.yaml:1: ${line.split(':')[0]} can only be`);
  }
  for (const [from, to] of [
    ['{ brokers', '{ compression: lz4, brokers'],
    ['{ brokers', '{ producer: other, brokers'],
  ] as const) {
    const error = refusal(() => configOf(minimal.replace(from, to)));
    assert.is(error.code, 'NOT_IN_THIS_VERSION', to);
  }
});

test('broken YAML names the line and shows none of it', () => {
  const error = refusal(() => configOf('cluster: shop\ncluster: hunter2\n'));
  assert.is(error.code, 'CONFIG_INVALID');
  assert.match(error.message, 'understudy.yaml:2: not valid YAML');
  const inFlow = refusal(() => configOf('nodes:\n  a: { url: ${A_URL} }\n'));
  assert.match(inFlow.message, 'understudy.yaml:2');
  const alias = refusal(() => configOf('cluster: *hunter2\n'));
  assert.is(alias.code, 'CONFIG_INVALID');
  for (const one of [error, inFlow, alias]) {
    assert.not.match(`${one.message} ${one.hint}`, 'hunter2');
  }
});

test('a Postgres URL is checked when it is expanded and never shown', () => {
  const wrong = [
    'mysql://u:hunter2@h/db',
    'postgres://u:hunter2@h',
    'postgres://u:hunter2@h/',
    'postgres://u:hunter2/x@h/db',
    'host=h password=hunter2',
  ];
  for (const url of wrong) {
    const error = refusal(() => configOf(minimal, { A_URL: url }).nodeUrl('a'));
    assert.is(error.code, 'CONFIG_INVALID', url);
    assert.match(error.message, 'nodes.a.url');
    assert.not.match(JSON.stringify(error) + String(error.cause), 'hunter2');
  }
});

test('kafka and registry are checked when they are expanded', () => {
  const broker = configOf(minimal.replace('"k1:9092"', '"k1"'));
  assert.match(refusal(() => broker.kafka()).message, 'kafka.brokers.0 is not host:port');
  const registry = configOf(minimal.replace('http://registry', 'ftp://registry'));
  assert.match(refusal(() => registry.registry()).message, 'registry.url');
  const half = configOf(minimal.replace('{ brokers', '{ ssl: { cert: c.pem }, brokers'));
  assert.match(refusal(() => half.kafka()).message, 'one of cert and key');
  const missing = configOf(minimal.replace('{ brokers', '{ ssl: { ca: ca.pem }, brokers'));
  assert.match(refusal(() => missing.kafka()).message, 'kafka.ssl.ca: cannot read');
});

test('redact hides what was handed out, also out of its URL', () => {
  const config = configOf(minimal);
  assert.is(config.redact('the word s3cr@t'), 'the word s3cr@t');
  config.nodeUrl('b');
  assert.not.match(config.redact('login with s3cr@t or s3cr%40t failed'), 's3cr');
  assert.is(config.redact('at postgres://x:y@h/d'), 'at postgres://x:***@h/d');
});

test('redact hides the credentials of a URL, and no host', () => {
  const hidden = (url: string, text: string): string => {
    const config = configOf(minimal.replace(/registry: .*/, `registry: { url: "${url}" }`));
    try {
      config.registry();
    } catch (error) {
      assert.is((error as UnderstudyError).code, 'CONFIG_INVALID');
    }
    return config.redact(text);
  };
  const message = 'the schema registry at http://registry:8081 is down';
  assert.is(hidden('registry', message), message);
  assert.is(hidden('http://registry:8081', message), message);
  assert.is(hidden('http://u:t0ken@registry:8081', message), message);
  assert.is(hidden('http://u:t0ken@registry:8081', 'wrong login t0ken'), 'wrong login ***');
  assert.is(hidden('http://t0ken@registry:8081', 'wrong login t0ken'), 'wrong login ***');
  assert.is(hidden('u:t0 ken@registry', 'at u:t0 ken@registry'), 'at ***');
});

test('an unknown node is refused with the nearest name', () => {
  const config = configOf(minimal.replace('  b:', '  berlin:'));
  const error = refusal(() => config.nodeUrl('berlim'));
  assert.is(error.code, 'NODE_UNKNOWN');
  assert.match(error.hint, 'Did you mean berlin?');
  assert.is(refusal(() => config.nodeUrl('constructor')).code, 'NODE_UNKNOWN');
});

test('the file is --config, else UNDERSTUDY_CONFIG, else understudy.yaml', () => {
  const directory = mkdtempSync(join(tmpdir(), 'understudy-config-'));
  try {
    const file = (name: string, cluster: string) =>
      writeFileSync(join(directory, name), minimal.replace('shop\n', `${cluster}\n`));
    file('understudy.yaml', 'one');
    file('second.yaml', 'two');
    file('third.yaml', 'three');
    writeFileSync(join(directory, 'ca.pem'), 'certificate');
    const load = (option: string | undefined, environment: Record<string, string>) =>
      loadConfig({ option, workingDirectory: directory, environment });
    const environment = { UNDERSTUDY_CONFIG: 'second.yaml' };
    assert.is(load(undefined, {}).cluster, 'one');
    assert.is(load(undefined, { UNDERSTUDY_CONFIG: '' }).cluster, 'one');
    assert.is(load(undefined, environment).cluster, 'two');
    assert.is(load('third.yaml', environment).cluster, 'three');
    const error = refusal(() => load('none.yaml', {}));
    assert.is(error.code, 'CONFIG_INVALID');
    assert.match(error.message, 'cannot read none.yaml (ENOENT)');
    writeFileSync(
      join(directory, 'tls.yaml'),
      minimal.replace('{ brokers', '{ ssl: { ca: ca.pem }, brokers'),
    );
    assert.equal(load('tls.yaml', {}).kafka().ssl, { ca: 'certificate' });
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('durations have a unit and a bound', () => {
  const pairs: readonly (readonly [string, number | null])[] = [
    ['250ms', 250],
    ['1s', 1000],
    ['1.5s', 1500],
    ['15m', 900_000],
    ['24h', 86_400_000],
    ['7d', 604_800_000],
    ['25d', null],
    ['1', null],
    ['1 s', null],
    ['-1s', null],
    ['1w', null],
    ['', null],
  ];
  for (const [text, ms] of pairs) assert.is(parseDurationMs(text), ms, text);
  for (const text of ['250ms', '1s', '15m', '24h']) {
    const ms = parseDurationMs(text) ?? Number.NaN;
    assert.is(parseDurationMs(formatDurationMs(ms)), ms);
  }
  assert.is(formatDurationMs(90_000), '90s');
  assert.is(formatDurationMs(0), '0ms');
});

test('suggestions are near and never far', () => {
  assert.is(editDistance('kafka', 'kafak'), 1);
  assert.is(editDistance('', 'abc'), 3);
  assert.is(nearestWord('regisrty', ['registry', 'points']), 'registry');
  assert.is(nearestWord('zzz', ['registry', 'points']), null);
});

test.run();
