/**
 * The sandbox against real servers: however its owner ends, nothing is left behind; no two Postgres
 * servers are the same one; and each server comes back after kill -9 with its data.
 */
// runs: ci, since every file with servers uses one
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, mkdtemp, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Kafka, logLevel } from 'kafkajs';
import pg from 'pg';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { waitUntilGone } from '../../scripts/sandbox/clean-up.ts';
import {
  childrenOf,
  identify,
  isAlive,
  type ProcessIdentity,
} from '../../scripts/sandbox/process-identity.ts';
import { type Sandbox, startSandbox } from '../../scripts/sandbox/sandbox.ts';
import { until } from '../support/until.ts';

const script = fileURLToPath(new URL('../../scripts/sandbox/main.ts', import.meta.url));
/** The grace of the clean-up and a margin. */
const goneMaxMs = 20_000;

interface Owner {
  readonly child: ChildProcess;
  readonly dir: string;
  /** Servers, their children, and the janitor. */
  readonly processes: readonly ProcessIdentity[];
  readonly exit: Promise<number | NodeJS.Signals | null>;
}

function launch(args: readonly string[]): ChildProcess {
  return spawn(process.execPath, ['--import', 'tsx', script, '--json', ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

function exitOf(child: ChildProcess): Promise<number | NodeJS.Signals | null> {
  return new Promise((resolve) => child.once('exit', (code, signal) => resolve(signal ?? code)));
}

async function startOwner(args: readonly string[]): Promise<Owner> {
  const child = launch(args);
  const exit = exitOf(child);
  let errors = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    errors += text;
  });
  assert.ok(child.stdout);
  for await (const line of createInterface({ input: child.stdout })) {
    const { dir, processes } = JSON.parse(line) as {
      dir: string;
      processes: { name: string; pid: number }[];
    };
    const identities = processes.flatMap(({ name, pid }) => {
      const identity = identify(pid);
      assert.ok(identity, `${name} runs`);
      return [identity, ...childrenOf(pid)];
    });
    return { child, dir, processes: identities, exit };
  }
  throw new Error(`the sandbox did not start: ${errors}`);
}

async function assertNothingLeft(owner: Pick<Owner, 'dir' | 'processes'>): Promise<void> {
  await waitUntilGone(owner.processes, goneMaxMs);
  assert.equal(owner.processes.filter(isAlive), [], 'all processes have ended');
  assert.not.ok(existsSync(owner.dir), 'the directory is removed');
}

async function ask(url: string, text: string): Promise<string> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  try {
    const result = await client.query<{ answer: unknown }>(text);
    return String(result.rows[0]?.answer);
  } finally {
    await client.end();
  }
}

const endings = suite('when the owner ends');

endings('kill -9 of the owner leaves nothing', async () => {
  const owner = await startOwner(['--postgres', '1', '--brokers', '1']);
  // Postgres with its children, Kafka, the registry, the janitor.
  assert.ok(owner.processes.length > 4);
  owner.child.kill('SIGKILL');
  assert.is(await owner.exit, 'SIGKILL');
  await assertNothingLeft(owner);
});

endings('Ctrl-C leaves nothing and is no failure', async () => {
  const owner = await startOwner(['--postgres', '1', '--brokers', '0', '--no-registry']);
  owner.child.kill('SIGINT');
  assert.is(await owner.exit, 0);
  await assertNothingLeft(owner);
});

endings('SIGTERM in the middle of the start leaves nothing', async () => {
  const parent = await mkdtemp(join(tmpdir(), 'understudy-sandbox-'));
  await chmod(parent, 0o711);
  const dir = join(parent, 'run');
  const child = launch(['--postgres', '1', '--brokers', '0', '--no-registry', '--dir', dir]);
  const exit = exitOf(child);
  // Its first children are the janitor, and initdb as soon as its user is known.
  const found = await until('two children', () => childrenOf(child.pid ?? 0), {
    ...{ pollMs: 5, reached: (children) => children.length >= 2 },
  });
  child.kill('SIGTERM');
  await exit;
  await assertNothingLeft({ dir, processes: found });
  await rmdir(parent);
});

const servers = suite<{ sandbox: Sandbox | undefined }>('Postgres servers', { sandbox: undefined });

servers.before(async (context) => {
  context.sandbox = await startSandbox({
    postgres: 2,
    brokers: 0,
    registry: false,
    log: () => undefined,
  });
});

servers.after(async ({ sandbox }) => {
  await sandbox?.stop();
  assert.ok(sandbox);
  assert.not.ok(existsSync(sandbox.dir));
});

servers('have different system identifiers', async ({ sandbox }) => {
  const text = 'SELECT system_identifier AS answer FROM pg_control_system()';
  const ids = await Promise.all((sandbox?.postgres ?? []).map((one) => ask(one.url(), text)));
  assert.is(ids.length, 2);
  assert.is(new Set(ids).size, 2);
});

servers('refuse a session without the password', async ({ sandbox }) => {
  const [server] = sandbox?.postgres ?? [];
  assert.ok(server);
  const without = server.url().replace(/:[0-9a-f]+@/, ':wrong@');
  await ask(without, 'SELECT 1 AS answer').then(
    () => assert.unreachable('a wrong password must not do'),
    (error: { code?: string }) => assert.is(error.code, '28P01'),
  );
});

servers('come back after kill -9 with their rows and settings', async ({ sandbox }) => {
  const [server] = sandbox?.postgres ?? [];
  assert.ok(server);
  await ask(server.url(), 'CREATE TABLE kept AS SELECT 42 AS answer');
  await server.configure({ work_mem: '7MB' });
  assert.is(await ask(server.url(), "SELECT current_setting('work_mem') AS answer"), '7MB');
  const children = childrenOf(server.pid() ?? 0);
  assert.ok(children.length > 0);
  const { port } = server;
  await server.kill('SIGKILL');
  assert.is(server.pid(), undefined);
  assert.equal(children.filter(isAlive), []);
  await server.start();
  assert.is(server.port, port);
  assert.is(await ask(server.url(), 'SELECT answer FROM kept'), '42');
  assert.is(await ask(server.url(), "SELECT current_setting('work_mem') AS answer"), '7MB');
  await server.stop('fast');
  assert.is(server.pid(), undefined);
  await server.start();
  assert.is(await ask(server.url(), "SELECT current_setting('wal_level') AS answer"), 'logical');
});

const javaServers = suite('Kafka and the registry');

javaServers('come back after kill -9 with topics and schemas', async () => {
  const sandbox = await startSandbox({ postgres: 0, log: () => undefined });
  try {
    const [broker] = sandbox.kafka;
    const { registry } = sandbox;
    assert.ok(broker && registry);
    const admin = new Kafka({ brokers: [broker.address], logLevel: logLevel.NOTHING }).admin();
    await admin.connect();
    // A broker may not know yet what its controller has created: the client would not retry.
    const waitForLeaders = false;
    await admin.createTopics({ topics: [{ topic: 'kept', numPartitions: 2 }], waitForLeaders });
    await admin.disconnect();
    const id = await registerSchema(registry.url);
    await Promise.all([broker.kill('SIGKILL'), registry.kill('SIGKILL')]);
    assert.equal([broker.pid(), registry.pid()], [undefined, undefined]);
    await Promise.all([broker.start(), registry.start()]);
    await admin.connect();
    const { topics } = await admin.fetchTopicMetadata({ topics: ['kept'] });
    await admin.disconnect();
    assert.is(topics[0]?.partitions.length, 2);
    assert.is(await registerSchema(registry.url), id);
  } finally {
    await sandbox.stop();
  }
  assert.not.ok(existsSync(sandbox.dir));
});

async function registerSchema(url: string): Promise<number> {
  const response = await fetch(`${url}/subjects/kept/versions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ schema: '"string"' }),
  });
  assert.is(response.status, 200);
  return ((await response.json()) as { id: number }).id;
}

endings.run();
servers.run();
javaServers.run();
