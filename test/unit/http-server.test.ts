/**
 * The HTTP server of `run --http`, asked over real connections.
 */
import { connect } from 'node:net';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
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

test('/status and /healthz answer, the rest does not exist', async () => {
  let ok = true;
  const base = await start({ health: () => ({ ok, role: 'leader' }) });
  const status = await fetch(`${base}/status?x=1`);
  assert.is(status.status, 200);
  assert.match(status.headers.get('content-type') ?? '', 'application/json');
  assert.equal(await status.json(), { cluster: 'shop' });
  assert.is((await fetch(`${base}/healthz`)).status, 200);
  ok = false;
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
