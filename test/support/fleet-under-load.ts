/**
 * A fleet that is written to all the time, for tests that break something under it. It takes what a
 * fleet is made of, workloads and a seed, and gives agents to kill, clients that write, watchers
 * that read on every node, and two verdicts: `isExact` compares rows and acknowledged writes, as
 * often as a test likes, and `end` has the checker read all nodes and the whole topic. The leader
 * may change on the way.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import * as assert from 'uvu/assert';
import { assertSound, checkFleet, type Verdict } from './checker/check-fleet.ts';
import { judgeWrites } from './checker/judge-writes.ts';
import { readContents, readEpochs } from './checker/read-nodes.ts';
import { describe } from './checker/violation.ts';
import { Clients, type ClientsOptions, type Place } from './clients.ts';
import { type Fleet, startFleet } from './fleet.ts';
import type { FleetAgent } from './fleet-agent.ts';
import type { FleetOptions, NodeName } from './fleet-options.ts';
import { seeded, seedOfRun } from './seed.ts';
import { Watchers } from './watchers.ts';
import { allWorkloads, rowsOf, tableNamesOf, tablesOf } from './workloads/all-workloads.ts';
import { bank } from './workloads/bank.ts';
import { entries } from './workloads/entries.ts';
import { moves } from './workloads/moves.ts';
import type { Workload } from './workloads/workload.ts';

/** Enough where a test breaks one link: sums, names that are there once, and keys that change. */
export const fewWorkloads: readonly Workload[] = [bank, entries, moves];

export interface UnderLoadOptions extends FleetOptions {
  /** Default: all. */
  readonly workloads?: readonly Workload[];
  readonly seed?: number;
  readonly clients?: Pick<ClientsOptions, 'writers' | 'pauseMs'>;
  /** Readers on every node that check each snapshot; default true. */
  readonly watched?: boolean;
}

const abandonMaxMs = 5_000;

export class FleetUnderLoad {
  readonly fleet: Fleet;
  readonly clients: Clients;
  readonly watchers: Watchers | null;
  readonly random: () => number;
  readonly workloads: readonly Workload[];
  leader: NodeName = 'a';
  /** The nodes of the fleet: a test takes a former leader out. */
  nodes: readonly NodeName[];

  private constructor(fleet: Fleet, options: UnderLoadOptions) {
    const { workloads = allWorkloads, seed = seedOfRun(), watched = true } = options;
    this.fleet = fleet;
    this.random = seeded(seed);
    this.workloads = workloads;
    this.nodes = fleet.nodes;
    const at = this.place(this.leader);
    this.clients = new Clients({ at, workloads, seed, ...options.clients });
    this.watchers = watched ? new Watchers(this.places, workloads) : null;
  }

  /** Agents run, all nodes have the first rows, clients and watchers are at work. */
  static async start(options: UnderLoadOptions): Promise<FleetUnderLoad> {
    const { workloads = allWorkloads, tables = '' } = options;
    const fleet = await startFleet({ ...options, tables: `${tablesOf(workloads)};${tables}` });
    try {
      await fleet.startAgents();
      await fleet.sql('a', rowsOf(workloads));
      await fleet.caughtUp();
    } catch (error) {
      await fleet.close();
      throw error;
    }
    return new FleetUnderLoad(fleet, options);
  }

  place(node: NodeName): Place {
    return { node, url: this.fleet.url(node) };
  }

  get places(): readonly Place[] {
    return this.nodes.map((node) => this.place(node));
  }

  get followers(): readonly NodeName[] {
    return this.nodes.filter((node) => node !== this.leader);
  }

  get leaderAgent(): FleetAgent {
    return this.fleet.agent(this.leader);
  }

  /** Resolves when the leader has acknowledged that many more transactions. */
  async progress(count: number): Promise<void> {
    await this.clients.progress(count);
  }

  /** Kills the leader's agent and starts another. */
  async restartLeader(): Promise<void> {
    await this.leaderAgent.kill();
    await this.fleet.startAgent(this.leader);
  }

  /** The rows of the workload `entries` that a node holds now. */
  async entries(node: NodeName): Promise<number> {
    const [row] = await this.fleet.sql<{ n: number }>(node, 'SELECT count(*)::int AS n FROM entry');
    return row?.n ?? 0;
  }

  /** Resolves when that many more entries have come all the way to node b. */
  async arrivals(count: number): Promise<void> {
    const wanted = (await this.entries('b')) + count;
    const reached = (held: number): boolean => held >= wanted;
    await this.fleet.until(`${wanted} entries on b`, () => this.entries('b'), { reached });
  }

  /** Kills the agents at once and starts them again; waits for nothing. */
  async kill(...nodes: readonly NodeName[]): Promise<void> {
    await Promise.all(nodes.map((node) => this.fleet.agent(node).kill()));
    for (const node of nodes) this.fleet.spawnAgent(node);
  }

  /** All agents lead or follow again. */
  async recovered(): Promise<void> {
    for (const node of this.nodes) {
      await this.fleet.agent(node).logged(/"message":"(leading|following)"/);
    }
  }

  /**
   * Clients rest, and every follower holds the leader's rows, with each acknowledged write once;
   * then they write on.
   */
  async isExact(): Promise<void> {
    await this.clients.pause();
    const { fleet, leader, nodes, workloads } = this;
    await fleet.caughtUp(leader, nodes);
    await fleet.assertAllSame(tableNamesOf(workloads), leader, nodes);
    const session = await fleet.session(this.followers[0] ?? leader);
    const contents = await readContents(session, this.followers[0] ?? leader, workloads);
    const epochs = await readEpochs(session);
    await session.end();
    const { violations } = judgeWrites(this.clients.entries, [contents], epochs);
    assert.is(violations.length, 0, `${describe(violations)}\n${fleet.logs()}`);
    assert.equal(this.clients.surprises, []);
    assert.equal(this.watchers?.sights ?? [], [], 'what no snapshot may show');
    for (const node of nodes) assert.not(fleet.agent(node).ended, fleet.logs());
    this.clients.resume();
  }

  /** All rows are compared at one LSN, while clients write on; null when they are equal. */
  async difference(): Promise<string | null> {
    const { code, json, stderr } = await this.fleet.cli('verify', ...this.followers);
    const compared = json?.nodes?.map(({ name }: { name: string }) => name);
    const isEqual = code === 0 && json.equal === true && `${compared}` === `${this.followers}`;
    return isEqual ? null : `verify, exit code ${code}: ${JSON.stringify(json)} ${stderr}`;
  }

  async compare(): Promise<void> {
    const difference = await this.difference();
    assert.is(difference, null, `${difference}\n${this.fleet.logs()}`);
  }

  /** Clients stop, everything is compared: throws at any violation. */
  async end(): Promise<Verdict> {
    const verdict = await this.judge();
    assertSound(verdict, this.fleet);
    return verdict;
  }

  async judge(): Promise<Verdict> {
    await this.clients.stop();
    await this.fleet.caughtUp(this.leader, this.nodes);
    await this.watchers?.stop();
    const { fleet, leader, nodes, workloads, watchers } = this;
    return checkFleet({ fleet, leader, nodes, workloads, clients: [this.clients], watchers });
  }

  /** For servers that are going away: nothing is waited for that needs them. */
  async abandon(): Promise<void> {
    const still = this.#stopAll();
    await this.clients.cut();
    await this.fleet.abandon();
    await Promise.race([still, sleep(abandonMaxMs)]);
  }

  async close(): Promise<void> {
    await this.#stopAll();
    await this.fleet.close();
  }

  /** What a client or a watcher failed of is an error of `judge`, or the test has failed before. */
  #stopAll(): Promise<unknown> {
    return Promise.allSettled([this.clients.stop(), this.watchers?.stop()]);
  }
}
