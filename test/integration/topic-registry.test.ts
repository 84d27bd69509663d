/**
 * Schemas against a real registry: ids are stable, attributes are kept, subjects take any change,
 * an id of another schema is refused, and a registry that is down is named without its password.
 */
import { createServer, type IncomingMessage, request } from 'node:http';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { connectRegistry, type SchemaRegistry } from '../../src/topic/schema-registry.ts';
import { FailingRegistry } from '../support/failing-registry.ts';
import { type Stack, useStack } from '../support/stack.ts';
import { rejection, testLog } from '../support/topic-stack.ts';
import { until } from '../support/until.ts';

let stack: Stack;
let subject: string;

test.before(async () => {
  stack = await useStack({ postgres: 0 });
});

test.after(async () => {
  await stack.close();
});

test.before.each(() => {
  subject = stack.uniqueName('test.changes-public.orders-');
});

function connect(url = stack.registryUrl): SchemaRegistry {
  return connectRegistry({ url }, testLog);
}

function schemaOf(...fields: readonly object[]): object {
  const key = { name: 'id', type: 'long', pgType: 'bigint', columnId: 'id' };
  return { type: 'record', name: 'orders', namespace: 'public', fields: [key, ...fields] };
}

const price = {
  name: 'price',
  type: ['null', 'string'],
  default: null,
  pgType: 'numeric(10,2)',
  columnId: 'price#2',
};

test('a schema is read with every attribute', async () => {
  const registry = connect();
  const id = await registry.register(subject, schemaOf(price));
  assert.equal(await connect().schemaById(id), schemaOf(price));
  assert.equal(await registry.schemaById(id), schemaOf(price));
});

test('the same schema has the same id, here and in another process', async () => {
  const registry = connect();
  const id = await registry.register(subject, schemaOf(price));
  const { type, ...rest } = schemaOf(price) as { type: string };
  assert.is(await registry.register(subject, { ...rest, type }), id);
  assert.is(await connect().register(subject, schemaOf(price)), id);
  assert.is.not(await registry.register(subject, schemaOf()), id);
});

test('a subject takes a schema that no compatibility level allows', async () => {
  const required = { name: 'note', type: 'string', pgType: 'text', columnId: 'note' };
  const first = await connect().register(subject, schemaOf(price));
  const second = await connect().register(subject, schemaOf(required));
  const third = await connect().register(subject, schemaOf({ ...required, type: 'long' }));
  assert.is(new Set([first, second, third]).size, 3);
});

test('a subject of another level is changed when it refuses a schema, or before', async () => {
  const required = { name: 'note', type: 'string', pgType: 'text', columnId: 'note' };
  const config = `${stack.registryUrl}/config/${subject}`;
  const level = async (): Promise<unknown> => {
    const answer = (await (await fetch(config)).json()) as Record<string, unknown>;
    return answer['compatibilityLevel'];
  };
  await connect().register(subject, schemaOf(price));
  const isNone = { reached: (found: unknown) => found === 'NONE' };
  await until('the level of the subject', level, isNone);
  const body = JSON.stringify({ compatibility: 'FULL' });
  const headers = { 'content-type': 'application/vnd.schemaregistry.v1+json' };
  assert.is((await fetch(config, { method: 'PUT', body, headers })).status, 200);
  assert.is(await level(), 'FULL');
  await connect().register(subject, schemaOf(required));
  assert.is(await level(), 'NONE');
});

test('a schema is registered and read back once, and a busy registry retried', async () => {
  const requests: string[] = [];
  let failures = 0;
  const target = new URL(stack.registryUrl);
  const server = createServer((incoming: IncomingMessage, outgoing) => {
    requests.push(`${incoming.method} ${incoming.url?.slice(target.pathname.length)}`);
    if (failures > 0) {
      failures -= 1;
      outgoing.writeHead(503).end('starting');
      return;
    }
    const { method, url, headers } = incoming;
    const options = { host: target.hostname, port: target.port, method, path: url, headers };
    const forwarded = request(options, (answer) => {
      outgoing.writeHead(answer.statusCode ?? 500, answer.headers);
      answer.pipe(outgoing);
    });
    incoming.pipe(forwarded);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  const registry = connect(`http://127.0.0.1:${port}${target.pathname}/`);
  failures = 2;
  await registry.register(subject, schemaOf());
  // This registry answers NONE where none is set.
  await until('a request for the level', () => requests.at(-1) ?? '', {
    reached: (last) => last === `GET /config/${subject}`,
  });
  requests.length = 0;
  const ids = await Promise.all([
    registry.register(subject, schemaOf()),
    registry.register(subject, schemaOf(price)),
    registry.register(subject, schemaOf(price)),
  ]);
  for (const id of ids) await registry.schemaById(id);
  assert.equal(requests, [`POST /subjects/${subject}/versions`, `GET /schemas/ids/${ids[1]}`]);
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

test('the id of another schema is refused', async () => {
  const failing = await FailingRegistry.start(stack.registryUrl);
  const other = await connect().register(`${subject}-other`, { ...schemaOf(), name: 'other' });
  failing.behave({ kind: 'other id', subject: /./, id: other });
  const failure = await rejection(connect(failing.url).register(subject, schemaOf(price)));
  await failing.close();
  assert.is(failure.code, 'PREREQUISITE');
  assert.match(failure.message, new RegExp(`the id ${other}, which is another schema`));
});

test('an unknown id, and a registry that is down, are errors with what to change', async () => {
  const unknown = await rejection(connect().schemaById(2_000_000_000));
  assert.is(unknown.code, 'PREREQUISITE');
  const away = connect('http://user:secret@127.0.0.1:1/apis/ccompat/v7');
  const failure = (await rejection(away.probe())) as UnderstudyError;
  assert.is(failure.code, 'REGISTRY_UNREACHABLE');
  assert.match(failure.message, /http:\/\/127\.0\.0\.1:1\/apis\/ccompat\/v7 .*ECONNREFUSED/);
  assert.not.match(JSON.stringify(failure) + String(failure.cause), /secret/);
  await connect().probe();
});

test('a server that is no registry is named with its status', async () => {
  const server = createServer((_, answer) => {
    answer.writeHead(404, { 'content-type': 'application/json' });
    answer.end(JSON.stringify({ message: { text: 'no such page' }, error: { status: 404 } }));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  const failure = await rejection(connect(`http://127.0.0.1:${port}/nothing`).probe());
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  assert.match(failure.message, `http://127.0.0.1:${port}/nothing`);
  assert.match(failure.message, 'status 404');
  assert.not.match(failure.message, '[object');
});

test.run();
