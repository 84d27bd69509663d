/**
 * A whole cluster whose agents are processes of their own, driven by the command as a person types
 * it. Flows in: a stack and the tables to begin with. Flows out: answers of commands, agents that
 * can be started, stopped and killed; at `close` no agent, topic or database is left.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import * as assert from 'uvu/assert';
import type { FleetStatus } from '../../src/agent/status-of.ts';
import { type Fleet, query, understudy } from './checked-fleet.ts';
import { type Stack, useStack } from './stack.ts';

const cli = fileURLToPath(new URL('../../src/cli.ts', import.meta.url));
/** An agent starts within seconds; a busy machine takes longer. */
const patienceMs = 30_000;
const pollMs = 100;

export interface Answer<Value> {
  readonly exit: number | null;
  readonly value: Value;
  readonly stderr: string;
}

interface Agent {
  readonly child: ChildProcess;
  readonly exit: Promise<number | null>;
  output: string;
}

export class RunningFleet {
  readonly fleet: Fleet;
  readonly #stack: Stack;
  readonly #directory: string;
  readonly #agents = new Map<string, Agent>();

  private constructor(stack: Stack, fleet: Fleet, directory: string) {
    this.#stack = stack;
    this.fleet = fleet;
    this.#directory = directory;
  }

  /** `tables` is run on every node before `init`; the first node leads. No agent runs yet. */
  static async begin(nodes: number, tables: readonly string[]): Promise<RunningFleet> {
    const stack = await useStack({ postgres: nodes });
    const urls = (await stack.createDatabases('fleet')).slice(0, nodes);
    const { brokers, registryUrl } = stack;
    const fleet = { cluster: stack.uniqueName('fleet'), urls, brokers, registryUrl };
    const directory = await mkdtemp(join(tmpdir(), 'understudy-fleet-'));
    const running = new RunningFleet(stack, fleet, directory);
    await Promise.all(urls.map((url) => query(url, ...tables)));
    const { exit, stderr } = await running.ask('init');
    assert.is(exit, 0, stderr);
    return running;
  }

  url(node: string): string {
    return this.fleet.urls['abc'.indexOf(node)] ?? '';
  }

  /** What Node is started with for a command of this cluster. */
  words(...words: readonly string[]): string[] {
    const file = join(this.#directory, `${this.fleet.cluster}.yaml`);
    return ['--import', 'tsx', cli, '--config', file, ...words];
  }

  /** The JSON answer of a command that has ended. */
  async ask<Value = unknown>(...words: readonly string[]): Promise<Answer<Value>> {
    return this.askAs({}, ...words);
  }

  /** The same under another configuration, such as one that names a server that is away. */
  async askAs<Value = unknown>(
    changes: Partial<Fleet>,
    ...words: readonly string[]
  ): Promise<Answer<Value>> {
    const fleet = { ...this.fleet, ...changes };
    const { exit, stdout, stderr } = await understudy(this.#directory, fleet, ['--json', ...words]);
    return { exit, value: JSON.parse(stdout) as Value, stderr };
  }

  /** Runs SQL on a node past its write guard, as our own sessions do. */
  async tamper(node: string, ...statements: readonly string[]): Promise<void> {
    await query(
      this.url(node),
      'SET session_replication_role = replica',
      'SET default_transaction_read_only = off',
      ...statements,
    );
  }

  /** Starts the agent of a node, and waits until it serves. */
  async start(...nodes: readonly string[]): Promise<void> {
    for (const node of nodes) {
      const words = this.words('--log-format', 'json', 'run', node);
      const child = spawn(process.execPath, words, { stdio: ['ignore', 'ignore', 'pipe'] });
      const exit = new Promise<number | null>((resolve) => child.once('close', resolve));
      const agent: Agent = { child, exit, output: '' };
      child.stderr?.setEncoding('utf8').on('data', (text: string) => {
        agent.output += text;
      });
      this.#agents.set(node, agent);
    }
    await this.until(({ nodes: all }) =>
      all.every(({ name, state }) => !nodes.includes(name) || state === 'streaming'),
    );
  }

  /** What an agent has logged, for the message of an assertion. */
  output(node: string): string {
    return this.#agents.get(node)?.output ?? '';
  }

  async stop(node: string, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    const agent = this.#agents.get(node);
    this.#agents.delete(node);
    agent?.child.kill(signal);
    await agent?.exit;
  }

  /** The first status that is as wanted. */
  async until(isWanted: (status: FleetStatus) => boolean): Promise<FleetStatus> {
    const deadlineMs = Date.now() + patienceMs;
    for (;;) {
      const { value, stderr } = await this.ask<FleetStatus>('status');
      if (value.nodes !== undefined && isWanted(value)) return value;
      if (Date.now() > deadlineMs) {
        const logs = [...this.#agents.values()].map(({ output }) => output).join('\n');
        throw new Error(`never: ${JSON.stringify(value)}\n${stderr}\n${logs}`);
      }
      await sleep(pollMs);
    }
  }

  async close(): Promise<void> {
    await Promise.all([...this.#agents.keys()].map((node) => this.stop(node)));
    await this.ask('destroy', '--yes');
    await rm(this.#directory, { recursive: true });
    await this.#stack.close();
  }
}
