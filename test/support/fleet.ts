/**
 * A cluster as its users run it: databases on the real stack, understudy.yaml in a folder of its
 * own, every agent a process of the built command. It takes tables, partitions and nodes, and gives
 * agents that can be stopped, killed and armed with failpoints, SQL on any node, answers of the
 * command line, and waits. `close` ends every process by its pid and removes all that was created.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type pg from 'pg';
import * as assert from 'uvu/assert';
import { stringify } from 'yaml';
import type { FleetStatus, NodeStatus } from '../../src/fleet/status/node-status.ts';
import { cleanUp, destroyCluster } from './clean-up.ts';
import { type CommandResult, commandFile, resultOf } from './command.ts';
import { FleetAgent } from './fleet-agent.ts';
import {
  type Config,
  configOf,
  type FleetOptions,
  linked,
  type NodeLinks,
  type NodeName,
  withNodes,
} from './fleet-options.ts';
import { connectTo, createDatabaseOn, type Stack, useStack } from './stack.ts';
import { type UntilOptions, until, untilMs } from './until.ts';

export interface Answer extends CommandResult {
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers of every verb.
  readonly json: any;
}

export type Row = Record<string, unknown>;

export async function startFleet(options: FleetOptions = {}): Promise<Fleet> {
  const fleet = await Fleet.make(options);
  if (options.init === false) return fleet;
  const { config } = fleet;
  if (options.initialised) await fleet.configure(withNodes(config, options.initialised));
  const { code, stdout, stderr } = await fleet.cli('init');
  assert.is(code, 0, `init: ${stdout} ${stderr}`);
  if (options.initialised) await fleet.configure(config);
  return fleet;
}

/** The fleet is closed after the work, whether it failed or not. */
export async function withFleet(
  options: FleetOptions,
  work: (fleet: Fleet) => Promise<void>,
): Promise<void> {
  const fleet = await startFleet(options);
  try {
    await work(fleet);
  } finally {
    await fleet.close();
  }
}

export class Fleet {
  readonly cluster: string;
  readonly nodes: readonly NodeName[];
  readonly partitions: number;
  readonly configFile: string;
  /** What understudy.yaml holds; `configure` changes it. */
  config: Config;
  readonly #directory: string;
  readonly #links: Partial<Record<NodeName, NodeLinks>>;
  readonly #urls: ReadonlyMap<NodeName, string>;
  readonly #agents: FleetAgent[] = [];
  readonly #clients = new Map<NodeName, pg.Client>();
  readonly #sessions: pg.Client[] = [];
  readonly #ownStack: Stack | null;

  private constructor(
    urls: ReadonlyMap<NodeName, string>,
    directory: string,
    config: Config,
    options: FleetOptions,
    ownStack: Stack | null,
  ) {
    this.cluster = String(config['cluster']);
    this.partitions = options.partitions ?? 1;
    this.#ownStack = ownStack;
    this.#links = options.links ?? {};
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
    const config = await configOf(options, stack, urls);
    const directory = await mkdtemp(join(tmpdir(), 'understudy-fleet-'));
    const ownStack = options.stack === undefined ? stack : null;
    const fleet = new Fleet(urls, directory, config, options, ownStack);
    await fleet.configure(config);
    for (const name of names) await fleet.sql(name, `${tables};${tablesOn[name] ?? ''}`);
    return fleet;
  }

  /** Writes understudy.yaml. */
  async configure(config: Config): Promise<void> {
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

  /** The common ones, which tests use too. */
  get brokers(): readonly string[] {
    return (this.config['kafka'] as { brokers: readonly string[] }).brokers;
  }

  get registryUrl(): string {
    return (this.config['registry'] as { url: string }).url;
  }

  /** Runs a command to its end. */
  async cli(...words: readonly string[]): Promise<Answer> {
    return this.cliDyingAt('', ...words);
  }

  /** Runs a command that a failpoint ends: its exit code is null then. */
  async cliDyingAt(failpoints: string, ...words: readonly string[]): Promise<Answer> {
    const env = { UNDERSTUDY_FAILPOINTS: failpoints };
    const child = this.#spawn(this.configFile, ['--json', ...words], env);
    const result = await resultOf(child);
    return { ...result, json: result.stdout === '' ? null : JSON.parse(result.stdout) };
  }

  /** Runs a command to its end without --json. */
  async text(...words: readonly string[]): Promise<CommandResult> {
    return resultOf(this.#spawn(this.configFile, words, {}));
  }

  /** Starts a command that runs until it is stopped; its log is all that it prints. */
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
  spawnAgent(node: NodeName, failpoints = '', options: readonly string[] = []): FleetAgent {
    const env = { UNDERSTUDY_FAILPOINTS: failpoints };
    const words = ['--json', 'run', node, ...options];
    const agent = new FleetAgent(node, this.#spawn(this.#configFileOf(node), words, env));
    this.#agents.push(agent);
    return agent;
  }

  /** Starts an agent and waits until it leads or follows. */
  async startAgent(node: NodeName, failpoints = ''): Promise<FleetAgent> {
    const agent = this.spawnAgent(node, failpoints);
    await agent.logged(/"message":"(leading|following)"/);
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
    const client = await connectTo(this.url(node));
    this.#sessions.push(client);
    return client;
  }

  /** Runs SQL as an ordinary client; the rows of its last statement. */
  async sql<Result = Row>(node: NodeName, text: string, values?: unknown[]): Promise<Result[]> {
    let client = this.#clients.get(node);
    if (client === undefined) {
      client = await connectTo(this.url(node));
      this.#clients.set(node, client);
      client.on('error', () => this.#clients.delete(node));
    }
    const answer = await client.query(text, values);
    const last = Array.isArray(answer) ? answer[answer.length - 1] : answer;
    return last.rows as Result[];
  }

  /** Runs SQL past the write guard, in a session that is then closed. */
  async tamper(node: NodeName, text: string): Promise<void> {
    const client = await connectTo(this.url(node));
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

  /** `until` with the logs of the agents as evidence. */
  async until<Value>(
    what: string,
    probe: () => Value | Promise<Value>,
    options: UntilOptions<Value> = {},
  ): Promise<Value> {
    return until(what, probe, { evidence: () => this.logs(), ...options });
  }

  /** Waits until the followers hold all that the leader has committed, backfill and all. */
  async caughtUp(
    leader: NodeName = 'a',
    followers = this.nodes,
    timeoutMs = untilMs,
  ): Promise<void> {
    const token = await this.token(leader);
    for (const node of followers.filter((name) => name !== leader)) {
      // It returns when the token is reached, or after the second, with the position of then.
      const wait = `SELECT understudy.wait_for($1, '1 s') AS "hasToken",
        (SELECT epoch || ':' || upto FROM understudy.position) AS position`;
      await this.until(
        `${token} on ${node}`,
        async () => (await this.sql(node, wait, [token]))[0],
        {
          reached: (row) => row?.['hasToken'] === true,
          hopeless: () => this.#ended(node),
          timeoutMs,
        },
      );
    }
  }

  /** Waits until the position of a node is at the leader's token, backfill or not. */
  async applied(node: NodeName, leader: NodeName = 'a'): Promise<void> {
    const [epoch, lsn] = (await this.token(leader)).split(':');
    const position = `SELECT epoch || ':' || upto AS position,
      (epoch, upto) >= ($1::int, $2::pg_lsn) AS "isThere" FROM understudy.position`;
    const read = async (): Promise<Row | undefined> =>
      (await this.sql(node, position, [epoch, lsn]))[0];
    await this.until(`${epoch}:${lsn} on ${node}`, read, {
      reached: (row) => row?.['isThere'] === true,
      hopeless: () => this.#ended(node),
    });
  }

  /** Waits until no table of a follower is backfilling. */
  async complete(node: NodeName, timeoutMs = untilMs): Promise<void> {
    const unfinished = 'SELECT unfinished FROM understudy.position';
    await this.until(`all rows on ${node}`, async () => (await this.sql(node, unfinished))[0], {
      reached: (row) => Array.isArray(row?.['unfinished']) && row['unfinished'].length === 0,
      hopeless: () => this.#ended(node),
      timeoutMs,
    });
  }

  /** Waits until `status` shows a node exact that is built from the log, or built again. */
  async exact(node: NodeName): Promise<NodeStatus> {
    return this.shows(node, 'exact', ({ exact }) => exact === true);
  }

  /** An agent that has ended does not get there: its log says why. */
  #ended(node: NodeName): string | null {
    const agent = this.#agents.findLast((one) => one.node === node);
    return agent?.ended ? `the agent of ${node} has ended` : null;
  }

  /**
   * An answer of `status` in which every server had time to answer: on a busy machine one takes
   * longer now and then than the command waits. Where the brokers are down on purpose, only late
   * databases are asked again.
   */
  async status(isKafkaUp = true): Promise<FleetStatus> {
    const answer = await this.until('a status of servers that answer', () => this.cli('status'), {
      reached: ({ stdout }) => !isLate.test(stdout) && !(isKafkaUp && isKafkaLate.test(stdout)),
      pollMs: 200,
    });
    assert.is(answer.code, 0, `status: ${answer.stdout} ${answer.stderr}`);
    return answer.json;
  }

  async nodeStatus(node: NodeName): Promise<NodeStatus> {
    const found = (await this.status()).nodes.find(({ name }) => name === node);
    assert.ok(found, `${node} is in the status`);
    return found;
  }

  /** Waits until `status` shows of a node what was expected. */
  async shows(
    node: NodeName,
    what: string,
    reached: (status: NodeStatus) => boolean | null,
  ): Promise<NodeStatus> {
    return this.until(`${what} in the status of ${node}`, () => this.nodeStatus(node), {
      // Each is a process, which takes half a second of a processor.
      ...{
        reached: (status) => reached(status) === true,
        pollMs: 500,
        hopeless: () => this.#ended(node),
      },
    });
  }

  /** The number of rows and the sum of their hashes, whatever their order. */
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

  async assertAllSame(
    tables: readonly string[],
    leader: NodeName = 'a',
    nodes = this.nodes,
  ): Promise<void> {
    for (const table of tables) await this.assertSame(table, leader, nodes);
  }

  /** What the agents have logged so far, for the message of an assertion. */
  logs(charactersMax = 3_000): string {
    return this.#agents
      .map((agent) => `--- ${agent.node} ${agent.log.slice(-charactersMax)}`)
      .join('\n');
  }

  /** Fails the file, not its caller: see cleanUp. */
  async close(): Promise<void> {
    await cleanUp(`the fleet ${this.cluster}`, async () => {
      await this.#endProcesses();
      const { code, stderr } = await destroyCluster((...words) => this.cli('destroy', ...words));
      await rm(this.#directory, { recursive: true });
      assert.is(code, 0, `destroy: ${stderr}`);
    });
    await this.#ownStack?.close();
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

/** Whichever limit comes first: that of the command, of the connection or of the statement. */
const isLate = /the database of node \w+ did not answer within|timeout expired|statement timeout/;
const isKafkaLate =
  /the (control log|topic) did not answer within|Kafka at .* does not answer within/;
