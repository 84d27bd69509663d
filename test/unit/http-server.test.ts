/**
 * The HTTP server of `run --http`, asked over real connections.
 */
import { get } from 'node:http';
import { connect } from 'node:net';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { isHostServed } from '../../src/http/host-header.ts';
import {
  parseListenAddress,
  type StatusServer,
  type StatusServerOptions,
  startStatusServer,
} from '../../src/http/server.ts';

const errors: unknown[] = [];
let server: StatusServer | null = null;

async function start(options: Partial<StatusServerOptions> = {}): Promise<string> {
  server = await startStatusServer({
    listen: { host: '127.0.0.1', port: 0 },
    status: async () => ({ cluster: 'shop' }),
    health: () => ({ ok: true }),
    readiness: () => ({ ready: true, nodes: [] }),
    figures: () => [],
    onError: (error) => errors.push(error),
    ...options,
  });
  return `http://127.0.0.1:${server.address.port}`;
}

test.after.each(async () => {
  errors.length = 0;
  await server?.stop();
  server = null;
});

test('addresses are of this machine unless a host is named', () => {
  assert.equal(parseListenAddress('8080'), { host: '127.0.0.1', port: 8080 });
  assert.equal(parseListenAddress(':8080'), { host: '127.0.0.1', port: 8080 });
  assert.equal(parseListenAddress('0.0.0.0:80'), { host: '0.0.0.0', port: 80 });
  assert.equal(parseListenAddress('[::1]:80'), { host: '::1', port: 80 });
  for (const text of ['', 'host', 'host:', '1.2.3.4:99999', '::1:80', 'http://h:80', 'a b:1']) {
    assert.throws(
      () => parseListenAddress(text),
      (error: unknown) => error instanceof UnderstudyError && error.code === 'USAGE',
      text,
    );
  }
});

test('/metrics answers in the format of Prometheus', async () => {
  const base = await start();
  const metrics = await fetch(`${base}/metrics`);
  assert.is(metrics.status, 200);
  assert.is(metrics.headers.get('content-type'), 'text/plain; version=0.0.4; charset=utf-8');
  assert.is((await fetch(`${base}/metrics`, { method: 'POST' })).status, 405);
});

test('/status, /livez and its former name /healthz answer, the rest does not exist', async () => {
  let ok = true;
  const base = await start({ health: () => ({ ok, role: 'leader' }) });
  const status = await fetch(`${base}/status?x=1`);
  assert.is(status.status, 200);
  assert.match(status.headers.get('content-type') ?? '', 'application/json');
  assert.equal(await status.json(), { cluster: 'shop' });
  for (const path of ['/livez', '/healthz']) {
    assert.is((await fetch(`${base}${path}`)).status, 200);
  }
  ok = false;
  assert.is((await fetch(`${base}/livez`)).status, 503);
  const unwell = await fetch(`${base}/healthz`);
  assert.is(unwell.status, 503);
  assert.equal(await unwell.json(), { ok: false, role: 'leader' });
  const missing = await fetch(`${base}/`);
  assert.is(missing.status, 404);
  assert.is(((await missing.json()) as { error: { code: string } }).error.code, 'USAGE');
  assert.is((await fetch(`${base}/status`, { method: 'POST' })).status, 405);
  const head = await fetch(`${base}/status`, { method: 'HEAD' });
  assert.equal([head.status, await head.text()], [200, '']);
});

test('/readyz is 503 with the reason while a node is not in its role', async () => {
  let ready = true;
  const node = { node: 'a', role: null, ready: false, reason: 'its agent is starting' };
  const base = await start({ readiness: () => ({ ready, nodes: [node] }) });
  assert.is((await fetch(`${base}/readyz`)).status, 200);
  ready = false;
  const answer = await fetch(`${base}/readyz`);
  assert.is(answer.status, 503);
  assert.equal(await answer.json(), { ready: false, nodes: [node] });
});

function statusOf(base: string, host: string): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const request = get(`${base}/status`, { headers: { host } }, (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    request.on('error', reject);
  });
}

test('a request that was sent to the name of another site is refused', async () => {
  const base = await start();
  for (const host of ['127.0.0.1', '127.0.0.1:80', 'localhost:9187', 'LOCALHOST', '[::1]:80']) {
    assert.is(await statusOf(base, host), 200, host);
  }
  const others = [
    'evil.example',
    'localhost.evil.example',
    '127.0.0.1.evil.example:80',
    '10.0.0.1',
  ];
  for (const host of [...others, '127.evil.example', 'localhost@evil.example', '[evil.example]']) {
    assert.is(await statusOf(base, host), 421, host);
  }
});

test('a server of all addresses is reached by any address, and by no name but its own', () => {
  assert.ok(isHostServed('10.0.0.7:8080', '0.0.0.0'));
  assert.ok(isHostServed('[fd00::7]:8080', '::'));
  assert.not(isHostServed('evil.example:8080', '0.0.0.0'));
  assert.ok(isHostServed('db1.internal:8080', 'DB1.internal'));
  assert.not(isHostServed('10.0.0.7:8080', 'db1.internal'));
  assert.ok(isHostServed(undefined, '127.0.0.1'), 'HTTP/1.0, which no browser speaks');
});

test('a status that takes too long is answered in time', async () => {
  const base = await start({ status: () => new Promise(() => undefined), answerWithinMs: 30 });
  const answer = await fetch(`${base}/status`);
  assert.is(answer.status, 503);
  assert.is(((await answer.json()) as { error: { code: string } }).error.code, 'TIMED_OUT');
});

test('a failure is JSON; an unknown one shows nothing and is reported', async () => {
  let failure: Error = new UnderstudyError('KAFKA_UNREACHABLE', 'no broker', 'start one');
  const base = await start({ status: () => Promise.reject(failure) });
  const known = await fetch(`${base}/status`);
  assert.is(known.status, 503);
  assert.is(((await known.json()) as { error: { message: string } }).error.message, 'no broker');
  assert.is(errors.length, 0);
  failure = new Error('hunter2');
  const unknown = await fetch(`${base}/status`);
  assert.is(unknown.status, 500);
  assert.not.match(await unknown.text(), 'hunter2');
  assert.equal(errors, [failure]);
});

test('an answer that is no JSON is reported and does not end the process', async () => {
  const base = await start({ status: async () => ({ lsn: 1n }) });
  assert.is((await fetch(`${base}/status`)).status, 500);
  assert.is(errors.length, 1);
});

test('concurrent requests share one read of the status', async () => {
  let lookups = 0;
  const base = await start({
    status: async () => {
      lookups += 1;
      await new Promise((resolve) => setTimeout(resolve, 100));
      return { lookups };
    },
  });
  const answers = await Promise.all([1, 2, 3, 4].map(() => fetch(`${base}/status`)));
  assert.equal(
    await Promise.all(answers.map((answer) => answer.json())),
    Array(4).fill({ lookups: 1 }),
  );
  assert.equal(await (await fetch(`${base}/status`)).json(), { lookups: 2 });
});

test('a port in use is refused with a remedy', async () => {
  await start();
  const port = server?.address.port ?? 0;
  try {
    const second = await startStatusServer({
      listen: { host: '127.0.0.1', port },
      status: async () => ({}),
      health: () => ({ ok: true }),
      readiness: () => ({ ready: true, nodes: [] }),
      figures: () => [],
      onError: () => undefined,
    });
    await second.stop();
    assert.unreachable('two servers on one port');
  } catch (error) {
    assert.instance(error, UnderstudyError);
    assert.match((error as UnderstudyError).message, 'EADDRINUSE');
  }
});

test('stop does not wait for connections that are kept open', async () => {
  await start();
  const socket = connect(server?.address.port ?? 0, '127.0.0.1');
  await new Promise((resolve) => socket.once('connect', resolve));
  const closed = new Promise((resolve) => socket.once('close', resolve));
  socket.on('error', () => undefined);
  await server?.stop();
  server = null;
  await closed;
});

test.run();
