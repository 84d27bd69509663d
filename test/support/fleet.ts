/**
 * A cluster as its users run it: databases on the real stack, understudy.yaml in a folder of its
 * own, every agent a process of the built command. Flows in: tables, partitions, nodes; flows out:
 * agents that can be stopped, killed and armed with failpoints, SQL on any node, and answers of the
 * command line. `close` ends every process by its pid and removes all that was made.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import * as assert from 'uvu/assert';
import { stringify } from 'yaml';
import { ddlSetting } from '../../scripts/sandbox/fitting-dump.ts';
import type { PostgresServer } from '../../scripts/sandbox/sandbox.ts';
import { FleetAgent } from './fleet-agent.ts';
import { commandFile, type Said, saidBy } from './said.ts';
import { createDatabaseOn, type Stack, useStack } from './stack.ts';

export type NodeName = 'a' | 'b' | 'c';

/** The ways that the agent of one node uses instead of everybody's. */
export interface NodeLinks {
  readonly url?: (url: string) => string;
  readonly brokers?: readonly string[];
  readonly registryUrl?: string;
}

export interface FleetOptions {
  /** Of a test that needs more of it; else the fleet has one of its own. */
  readonly stack?: Stack;
  /** 2 (a and b, the default) or 3. Node a leads after init. */
  readonly nodes?: 2 | 3;
  readonly partitions?: number;
  /** SQL that is run on every node before init. */
  readonly tables?: string;
  /** SQL for one node, after `tables`. */
  readonly tablesOn?: Partial<Record<NodeName, string>>;
  /** What CREATE DATABASE says behind the name, from node a on. */
  readonly databases?: readonly string[];
  /** Servers to use instead of the stack's, for tests that stop them. */
  readonly servers?: Partial<Record<NodeName, PostgresServer>>;
  /** Instead of the stack's brokers. */
  readonly brokers?: readonly string[];
  readonly registryUrl?: string;
  readonly links?: Partial<Record<NodeName, NodeLinks>>;
  /** False leaves `init` to the test. */
  readonly init?: boolean;
}

export interface Answer extends Said {
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers of every verb.
  readonly json: any;
}

export type Row = Record<string, unknown>;

/** A follower that has not caught up by then does not. */
export const patienceMs = 90_000;

export async function startFleet(options: FleetOptions = {}): Promise<Fleet> {
  const fleet = await Fleet.make(options);
  if (options.init === false) return fleet;
  const { code, stdout, stderr } = await fleet.cli('init');
  assert.is(code, 0, `init: ${stdout} ${stderr}`);
  return fleet;
}

export class Fleet {
  readonly cluster: string;
  readonly nodes: readonly NodeName[];
  readonly configFile: string;
  /** As the file says; `configure` changes it. */
  config: Record<string, unknown>;
  readonly #directory: string;
  readonly #links: Partial<Record<NodeName, NodeLinks>>;
  readonly #urls: ReadonlyMap<NodeName, string>;
  readonly #agents: FleetAgent[] = [];
  readonly #clients = new Map<NodeName, pg.Client>();
  readonly #sessions: pg.Client[] = [];
  readonly #ownStack: Stack | null;

  private constructor(
    cluster: string,
    urls: ReadonlyMap<NodeName, string>,
    directory: string,
    config: Record<string, unknown>,
    links: Partial<Record<NodeName, NodeLinks>>,
    ownStack: Stack | null,
  ) {
    this.cluster = cluster;
    this.#ownStack = ownStack;
    this.#links = links;
    this.#urls = urls;
    this.nodes = [...urls.keys()];
    this.#directory = directory;
    this.configFile = join(directory, 'understudy.yaml');
    this.config = config;
  }

  static async make(options: FleetOptions): Promise<Fleet> {
    const { tables = '', tablesOn = {}, servers = {} } = options;
    const stack = options.stack ?? (await useStack({ postgres: options.nodes ?? 2 }));
    const databases = await stack.createDatabases('fleet', options.databases);
    const names = (['a', 'b', 'c'] as const).slice(0, options.nodes ?? 2);
    const urls = new Map<NodeName, string>();
    for (const [at, name] of names.entries()) {
      const server = servers[name];
      urls.set(
        name,
        server === undefined ? (databases[at] ?? '') : await createDatabaseOn(server, 'fleet'),
      );
    }
    const cluster = stack.uniqueName('fleet');
    const config = {
      cluster,
      nodes: Object.fromEntries([...urls].map(([name, url]) => [name, { url }])),
      kafka: { brokers: options.brokers ?? stack.brokers, partitions: options.partitions ?? 1 },
      registry: { url: options.registryUrl ?? stack.registryUrl },
      ...(await ddlSetting(urls.get('a') ?? '')),
    };
    const directory = await mkdtemp(join(tmpdir(), 'understudy-fleet-'));
    const ownStack = options.stack === undefined ? stack : null;
    const fleet = new Fleet(cluster, urls, directory, config, options.links ?? {}, ownStack);
    await fleet.configure(config);
    for (const name of names) await fleet.sql(name, `${tables};${tablesOn[name] ?? ''}`);
    return fleet;
  }

  /** Writes understudy.yaml anew. */
  async configure(config: Record<string, unknown>): Promise<void> {
    this.config = config;
    await writeFile(this.configFile, stringify(config), { mode: 0o600 });
    for (const [node, links] of Object.entries(this.#links)) {
      const own = linked(config, node, links);
      await writeFile(this.#configFileOf(node), stringify(own), { mode: 0o600 });
    }
  }

  #configFileOf(node: string): string {
    const hasOwn = Object.hasOwn(this.#links, node);
    return hasOwn ? join(this.#directory, `${node}.yaml`) : this.configFile;
  }

  url(node: NodeName): string {
    return this.#urls.get(node) ?? '';
  }

  /** Runs a command to its end. */
  async cli(...words: readonly string[]): Promise<Answer> {
    return this.cliDyingAt('', ...words);
  }

  /** Runs a command that a failpoint ends: its exit code is null then. */
  async cliDyingAt(failpoints: string, ...words: readonly string[]): Promise<Answer> {
    const env = { UNDERSTUDY_FAILPOINTS: failpoints };
    const child = this.#spawn(this.configFile, ['--json', ...words], env);
    const said = await saidBy(child);
    return { ...said, json: said.stdout === '' ? null : JSON.parse(said.stdout) };
  }

  /** Runs a command to its end as a person does. */
  async text(...words: readonly string[]): Promise<Said> {
    return saidBy(this.#spawn(this.configFile, words, {}));
  }

  /** Starts a command that goes on until it is stopped; its log is all that it says. */
  spawnCommand(...words: readonly string[]): FleetAgent {
    const command = new FleetAgent(words.join(' '), this.#spawn(this.configFile, words, {}));
    this.#agents.push(command);
    return command;
  }

  #spawn(
    configFile: string,
    words: readonly string[],
    env: Readonly<Record<string, string>>,
  ): ChildProcess {
    const args = [commandFile, '--config', configFile, '--log-format', 'json', ...words];
    const stdio = ['ignore', 'pipe', 'pipe'] as const;
    return spawn(process.execPath, args, { stdio: [...stdio], env: { ...process.env, ...env } });
  }

  /** Starts `understudy run <node>`; does not wait for anything. */
  spawnAgent(node: NodeName, failpoints = ''): FleetAgent {
    const env = { UNDERSTUDY_FAILPOINTS: failpoints };
    const words = ['--json', 'run', node];
    const agent = new FleetAgent(node, this.#spawn(this.#configFileOf(node), words, env));
    this.#agents.push(agent);
    return agent;
  }

  /** Starts an agent and waits until it leads or follows. */
  async startAgent(node: NodeName, failpoints = ''): Promise<FleetAgent> {
    const agent = this.spawnAgent(node, failpoints);
    await agent.says(/"message":"(leading|following)"/);
    return agent;
  }

  async startAgents(): Promise<Record<NodeName, FleetAgent>> {
    const agents = await Promise.all(this.nodes.map((node) => this.startAgent(node)));
    return Object.fromEntries(agents.map((agent) => [agent.node, agent])) as never;
  }

  /** The agent of the node that was started last. */
  agent(node: NodeName): FleetAgent {
    const agent = this.#agents.findLast((one) => one.node === node);
    if (agent === undefined) throw new Error(`no agent of node ${node} was started`);
    return agent;
  }

  /** A session of an ordinary client; closed with the fleet at the latest. */
  async session(node: NodeName): Promise<pg.Client> {
    const client = await connect(this.url(node));
    this.#sessions.push(client);
    return client;
  }

  /** Runs SQL as an ordinary client; the rows of its last statement. */
  async sql<Result = Row>(node: NodeName, text: string, values?: unknown[]): Promise<Result[]> {
    let client = this.#clients.get(node);
    if (client === undefined) {
      client = await connect(this.url(node));
      this.#clients.set(node, client);
      client.on('error', () => this.#clients.delete(node));
    }
    const answer = await client.query(text, values);
    const last = Array.isArray(answer) ? answer[answer.length - 1] : answer;
    return last.rows as Result[];
  }

  /** Runs SQL past the write guard, in a session that is then closed. */
  async tamper(node: NodeName, text: string): Promise<void> {
    const client = await connect(this.url(node));
    try {
      await client.query('SET session_replication_role = replica');
      await client.query('SET default_transaction_read_only = off');
      await client.query(text);
    } finally {
      await client.end();
    }
  }

  async token(leader: NodeName = 'a'): Promise<string> {
    const [row] = await this.sql<{ token: string }>(leader, 'SELECT understudy.token() AS token');
    return row?.token ?? '';
  }

  /** Waits until the followers hold all that the leader has committed. */
  async caughtUp(
    leader: NodeName = 'a',
    followers = this.nodes,
    maxMs = patienceMs,
  ): Promise<void> {
    const token = await this.token(leader);
    for (const node of followers) {
      if (node !== leader) await this.#reaches(node, token, maxMs);
    }
  }

  /** An agent that has ended will not get there: its log says why. */
  async #reaches(node: NodeName, token: string, maxMs: number): Promise<void> {
    const deadlineMs = Date.now() + maxMs;
    for (;;) {
      const [row] = await this.sql<{ there: boolean }>(
        node,
        `SELECT understudy.wait_for($1, '1 s') AS there`,
        [token],
      );
      if (row?.there) return;
      const ended = this.#agents.length > 0 && this.agent(node).ended;
      const late = ended || Date.now() > deadlineMs;
      assert.not(late, `node ${node} never reached ${token}\n${this.logs()}`);
    }
  }

  /** Rows and a sum of their hashes: equal whatever order they lie in. */
  async digest(node: NodeName, table: string, columns = 't'): Promise<string> {
    const [row] = await this.sql<{ digest: string }>(
      node,
      `SET extra_float_digits = 3; SET timezone = 'UTC';
       SELECT count(*) || ' rows ' || coalesce(sum(('x' || substr(md5((${columns})::text), 1, 15))
         ::bit(60)::bigint), 0) AS digest FROM ${table} AS t`,
    );
    return row?.digest ?? '';
  }

  /** Every node has the leader's rows; gives their digest. */
  async assertSame(table: string, leader: NodeName = 'a', nodes = this.nodes): Promise<string> {
    const wanted = await this.digest(leader, table);
    for (const node of nodes) {
      assert.is(await this.digest(node, table), wanted, `${table} on ${node}\n${this.logs()}`);
    }
    return wanted;
  }

  /** What the agents have logged so far, for the message of an assertion. */
  logs(charactersMax = 3_000): string {
    return this.#agents
      .map((agent) => `--- ${agent.node} ${agent.log.slice(-charactersMax)}`)
      .join('\n');
  }

  async close(): Promise<void> {
    await this.#endProcesses();
    const { code, stderr } = await this.cli('destroy', '--yes');
    await rm(this.#directory, { recursive: true });
    await this.#ownStack?.close();
    assert.is(code, 0, `destroy: ${stderr}`);
  }

  /** The same for a fleet whose servers are going away: its topics and databases go with them. */
  async abandon(): Promise<void> {
    await this.#endProcesses();
    await rm(this.#directory, { recursive: true, force: true });
  }

  async #endProcesses(): Promise<void> {
    await Promise.all(this.#agents.map((agent) => agent.kill()));
    const clients = [...this.#clients.values(), ...this.#sessions];
    await Promise.all(clients.map((client) => client.end()));
  }
}

async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url, application_name: 'application' });
  // A connection that breaks while idle also fails the next query.
  client.on('error', () => undefined);
  await client.connect();
  return client;
}

/** What the agent of a node with ways of its own reads: else the same as everybody. */
function linked(config: Record<string, unknown>, node: string, links: NodeLinks): object {
  const nodes = config['nodes'] as Record<string, { url: string }>;
  const url = nodes[node]?.url ?? '';
  const { brokers, registryUrl } = links;
  return {
    ...config,
    nodes: { ...nodes, [node]: { ...nodes[node], url: links.url?.(url) ?? url } },
    kafka: { ...(config['kafka'] as object), ...(brokers && { brokers }) },
    ...(registryUrl && { registry: { url: registryUrl } }),
  };
}
