/**
 * A fleet under load that faults are done to. Flows in: a stack, partitions, workloads; flows out:
 * agents to kill, freeze and stop, clients that write all the while, watchers on every node, and at
 * the end the verdict of the checker. The leader may change on the way.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import * as assert from 'uvu/assert';
import { checkFleet, type Verdict } from './checker/check-fleet.ts';
import { describe } from './checker/violation.ts';
import { Clients, type ClientsOptions, type Place } from './clients.ts';
import { type Fleet, type FleetOptions, type NodeName, startFleet } from './fleet.ts';
import { seeded, seedOfRun } from './seed.ts';
import type { Stack } from './stack.ts';
import { Watchers } from './watchers.ts';
import { allWorkloads, rowsOf, tablesOf } from './workloads/all-workloads.ts';
import type { Workload } from './workloads/workload.ts';

export interface FaultRunOptions extends Omit<FleetOptions, 'tables'> {
  readonly stack: Stack;
  readonly workloads?: readonly Workload[];
  readonly seed?: number;
  readonly clients?: Pick<ClientsOptions, 'writers' | 'pauseMs'>;
}

const abandonMaxMs = 5_000;

export class FaultRun {
  readonly fleet: Fleet;
  readonly clients: Clients;
  readonly watchers: Watchers;
  readonly random: () => number;
  readonly workloads: readonly Workload[];
  readonly partitions: number;
  leader: NodeName = 'a';
  /** Who is in the fleet; a former leader is not. */
  nodes: readonly NodeName[];
  readonly #brokers: readonly string[];

  private constructor(fleet: Fleet, options: FaultRunOptions, seed: number) {
    this.fleet = fleet;
    this.random = seeded(seed);
    this.workloads = options.workloads ?? allWorkloads;
    this.partitions = options.partitions ?? 1;
    this.nodes = fleet.nodes;
    this.#brokers = options.brokers ?? options.stack.brokers;
    const { workloads } = this;
    const at = this.place(this.leader);
    this.clients = new Clients({ at, workloads, seed, ...options.clients });
    this.watchers = new Watchers(this.places, workloads);
  }

  /** Agents run, all nodes have the first rows, clients and watchers are at work. */
  static async begin(options: FaultRunOptions): Promise<FaultRun> {
    const workloads = options.workloads ?? allWorkloads;
    const fleet = await startFleet({ ...options, tables: tablesOf(workloads) });
    try {
      await fleet.startAgents();
      await fleet.sql('a', rowsOf(workloads));
      await fleet.caughtUp();
    } catch (error) {
      await fleet.close();
      throw error;
    }
    return new FaultRun(fleet, options, options.seed ?? seedOfRun());
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

  /** Kills the agents at once and starts them again; waits for nothing. */
  async kill(...nodes: readonly NodeName[]): Promise<void> {
    await Promise.all(nodes.map((node) => this.fleet.agent(node).kill()));
    for (const node of nodes) this.fleet.spawnAgent(node);
  }

  /** All agents lead or follow again. */
  async recovered(): Promise<void> {
    for (const node of this.nodes) {
      await this.fleet.agent(node).says(/"message":"(leading|following)"/);
    }
  }

  /** All rows are compared at one LSN, while clients go on; null when they are equal. */
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
    assert.is(
      verdict.violations.length,
      0,
      `${describe(verdict.violations)}\n${this.fleet.logs()}`,
    );
    return verdict;
  }

  async judge(): Promise<Verdict> {
    await this.clients.stop();
    await this.fleet.caughtUp(this.leader, this.nodes);
    await this.watchers.stop();
    const { fleet, leader, nodes, partitions, workloads, watchers } = this;
    const brokers = this.#brokers;
    const clients = [this.clients];
    return checkFleet({ fleet, leader, nodes, partitions, brokers, workloads, clients, watchers });
  }

  /** For servers that are going away: nothing is waited for that needs them. */
  async abandon(): Promise<void> {
    const still = Promise.allSettled([this.clients.stop(), this.watchers.stop()]);
    await this.clients.cut();
    await this.fleet.abandon();
    await Promise.race([still, sleep(abandonMaxMs)]);
  }

  async close(): Promise<void> {
    await Promise.allSettled([this.clients.stop(), this.watchers.stop()]);
    await this.fleet.close();
  }
}
