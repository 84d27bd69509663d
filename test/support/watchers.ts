/**
 * Readers that look at nodes while everything happens: one session for each node, which asks again
 * and again whether every workload's rows add up in one snapshot, and whether a value went back.
 * Flows in: nodes and workloads; flows out: how often each node was looked at, and what no snapshot
 * may show. A node that is away is asked again later.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { isRetriable } from '../../src/lifecycle.ts';
import type { Place } from './clients.ts';
import type { Workload } from './workloads/workload.ts';

export interface Sight {
  readonly node: string;
  readonly workload: string;
  /** 'wrong' does not add up in a snapshot; 'back' is smaller than it was on the same node. */
  readonly kind: 'wrong' | 'back';
  readonly what: string;
  readonly atMs: number;
}

const connectMaxMs = 2_000;
const queryMaxMs = 30_000;
const betweenMs = 40;
const reconnectMs = 200;
const sightsMax = 50;

export class Watchers {
  readonly sights: Sight[] = [];
  readonly #looks = new Map<string, number>();
  readonly #workloads: readonly Workload[];
  readonly #work: Promise<unknown>;
  #stopped = false;

  /** All nodes have the workloads' first rows by now. */
  constructor(places: readonly Place[], workloads: readonly Workload[]) {
    this.#workloads = workloads;
    this.#work = Promise.all(places.map((place) => this.#watch(place)));
    this.#work.catch(() => undefined);
  }

  looksAt(node: string): number {
    return this.#looks.get(node) ?? 0;
  }

  get looks(): number {
    return [...this.#looks.values()].reduce((sum, count) => sum + count, 0);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#work;
  }

  async #watch(place: Place): Promise<void> {
    const highest = new Map<string, bigint>();
    while (!this.#stopped) {
      const client = new pg.Client({
        connectionString: place.url,
        application_name: 'reader',
        connectionTimeoutMillis: connectMaxMs,
        query_timeout: queryMaxMs,
      });
      client.on('error', () => undefined);
      try {
        await client.connect();
        while (!this.#stopped) {
          for (const workload of this.#workloads) {
            await this.#lookForWrong(client, place.node, workload);
            await this.#lookForBack(client, place.node, workload, highest);
          }
          this.#looks.set(place.node, this.looksAt(place.node) + 1);
          await sleep(betweenMs);
        }
      } catch (error) {
        if (!isRetriable(error) && !isLate(error)) throw error;
        await sleep(reconnectMs);
      } finally {
        await client.end().catch(() => undefined);
      }
    }
  }

  async #lookForWrong(client: pg.Client, node: string, workload: Workload): Promise<void> {
    if (workload.wrong === undefined) return;
    const { rows } = await client.query<{ wrong: string }>(workload.wrong);
    for (const { wrong } of rows) this.#saw(node, workload, 'wrong', wrong);
  }

  async #lookForBack(
    client: pg.Client,
    node: string,
    workload: Workload,
    highest: Map<string, bigint>,
  ): Promise<void> {
    if (workload.climbing === undefined) return;
    const { rows } = await client.query<{ name: string; value: string }>(workload.climbing);
    for (const { name, value } of rows) {
      const key = `${workload.name} ${name}`;
      const before = highest.get(key) ?? 0n;
      const now = BigInt(value);
      if (now < before) this.#saw(node, workload, 'back', `${name} went from ${before} to ${now}`);
      highest.set(key, now);
    }
  }

  #saw(node: string, workload: Workload, kind: Sight['kind'], what: string): void {
    if (this.sights.length === sightsMax) return;
    this.sights.push({ node, workload: workload.name, kind, what, atMs: Date.now() });
  }
}

function isLate(error: unknown): boolean {
  return error instanceof Error && error.message === 'Query read timeout';
}
