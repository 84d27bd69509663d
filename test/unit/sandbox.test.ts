/**
 * The decisions of the sandbox that need no server: what is read from version texts, which settings
 * a broker gets, whom a signal may reach, and that what is fetched once is fetched once.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { cached } from '../../scripts/sandbox/cache.ts';
import { endProcesses } from '../../scripts/sandbox/clean-up.ts';
import { exportLines } from '../../scripts/sandbox/example-config.ts';
import { brokerProperties } from '../../scripts/sandbox/kafka-properties.ts';
import { freePorts } from '../../scripts/sandbox/ports.ts';
import { postgresMajor } from '../../scripts/sandbox/postgres-binaries.ts';
import { settingsText } from '../../scripts/sandbox/postgres-server.ts';
import { javaMajor } from '../../scripts/sandbox/prerequisites.ts';
import { childrenOf, identify, isAlive } from '../../scripts/sandbox/process-identity.ts';
import { portWasTaken } from '../../scripts/sandbox/server-start.ts';

test('versions are read from what the programs print', () => {
  assert.is(javaMajor('openjdk version "17.0.15" 2025-04-15'), 17);
  assert.is(javaMajor('java version "1.8.0_391"'), 8);
  assert.is(javaMajor('openjdk version "25" 2025-09-16'), 25);
  assert.is(javaMajor('No Java runtime present'), undefined);
  assert.is(postgresMajor('postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)'), 15);
  assert.is(postgresMajor('postgres (PostgreSQL) 19beta1'), 19);
  assert.is(postgresMajor('initdb: error'), undefined);
});

test('three brokers replicate three times, and one broker once', () => {
  const member = (id: number) => ({ id, port: 1000 + id, controllerPort: 2000 + id });
  const three = brokerProperties({
    id: 2,
    members: [member(1), member(2), member(3)],
    dataDir: '/d',
    fastCompaction: false,
  }).split('\n');
  assert.ok(three.includes('node.id=2'));
  assert.ok(
    three.includes('controller.quorum.voters=1@127.0.0.1:2001,2@127.0.0.1:2002,3@127.0.0.1:2003'),
  );
  assert.ok(three.includes('listeners=PLAINTEXT://127.0.0.1:1002,CONTROLLER://127.0.0.1:2002'));
  assert.ok(three.includes('transaction.state.log.replication.factor=3'));
  assert.ok(three.includes('transaction.state.log.min.isr=2'));
  assert.not.ok(three.some((line) => line.startsWith('log.cleaner.backoff.ms')));
  const one = brokerProperties({
    id: 1,
    members: [member(1)],
    dataDir: '/d',
    fastCompaction: true,
  }).split('\n');
  assert.ok(one.includes('transaction.state.log.replication.factor=1'));
  assert.ok(one.includes('transaction.state.log.min.isr=1'));
  assert.ok(one.includes('log.cleaner.backoff.ms=200'));
});

test('settings and exports survive quotes', () => {
  assert.is(
    settingsText(new Map([['log_line_prefix', "it's %m"]])),
    "log_line_prefix = 'it''s %m'\n",
  );
  assert.is(exportLines({ A: "it's" }), "export A='it'\\''s'\n");
});

test('a lost port is distinguished from other failures', () => {
  assert.ok(portWasTaken('could not bind IPv4 address "127.0.0.1": Address already in use'));
  assert.ok(portWasTaken('Caused by: java.net.BindException: Address already in use'));
  assert.ok(portWasTaken('ERROR (main) Port 31999 seems to be in use by another process.'));
  assert.not.ok(portWasTaken('FATAL: invalid value for parameter "wal_level": "logicall"'));
});

test('free ports are different and below those of outgoing connections', async () => {
  const ports = await freePorts(50);
  assert.is(new Set(ports).size, 50);
  assert.ok(ports.every((port) => port >= 15_000 && port < 32_000));
});

test('a process is identified by pid and start time, and a zombie counts as ended', async () => {
  const child = spawn('/bin/sh', ['-c', 'sleep 60 & wait'], { stdio: 'ignore', detached: true });
  const identity = identify(child.pid ?? 0);
  assert.ok(identity !== undefined);
  assert.ok(isAlive(identity));
  while (childrenOf(identity.pid).length === 0) await new Promise((next) => setTimeout(next, 10));
  const grandchildren = childrenOf(identity.pid);
  assert.is(grandchildren.length, 1);

  const reused = { pid: identity.pid, startedAt: '1', endSignal: 'SIGKILL' } as const;
  assert.ok(await endProcesses([reused]));
  assert.ok(isAlive(identity), 'a process with another start time must not be touched');

  // The shell dies at SIGKILL and would leave its child; the end takes what was there before.
  process.kill(identity.pid, 'SIGSTOP');
  assert.ok(await endProcesses([{ ...identity, endSignal: 'SIGTERM' }]));
  assert.not.ok(isAlive(identity));
  assert.not.ok(grandchildren.some(isAlive));
});

test('what is cached is made once, whole or not at all', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'understudy-cache-'));
  try {
    const target = join(directory, 'thing');
    let made = 0;
    const make = async (empty: string): Promise<void> => {
      made += 1;
      await new Promise((next) => setTimeout(next, 100));
      await writeFile(join(empty, 'file'), 'whole');
    };
    await cached(target, async () => {
      throw new Error('no network');
    }).then(
      () => assert.unreachable('a failed download must not pass'),
      (error: Error) => assert.is(error.message, 'no network'),
    );
    assert.not.ok(existsSync(target));
    await writeFile(`${target}.lock`, JSON.stringify({ pid: process.pid, startedAt: 'dead' }));
    await Promise.all([cached(target, make), cached(target, make)]);
    assert.is(made, 1);
    assert.is(await readFile(join(target, 'file'), 'utf8'), 'whole');
    assert.equal(await readdir(directory), ['thing']);
  } finally {
    await rm(directory, { recursive: true });
  }
});

test.run();
