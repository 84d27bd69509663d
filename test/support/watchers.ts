/**
 * Readers of nodes while faults happen: one session for each node, which checks again and again
 * that every workload's rows fit together in one snapshot, and that no value decreased. They give
 * the number of snapshots of each node, and what no snapshot may show. A node that is down is
 * retried.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { isRetriable } from '../../src/lifecycle.ts';
import type { Place } from './clients.ts';
import type { Workload } from './workloads/workload.ts';

/** What a snapshot shows and may not. */
export interface Sight {
  readonly node: string;
  readonly workload: string;
  /** `wrong` is rows that do not fit together; `back` is smaller than it was on the same node. */
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
  readonly #snapshots = new Map<string, number>();
  readonly #workloads: readonly Workload[];
  readonly #work: Promise<unknown>;
  #stopped = false;

  /** All nodes have the workloads' first rows by now. */
  constructor(places: readonly Place[], workloads: readonly Workload[]) {
    this.#workloads = workloads;
    this.#work = Promise.all(places.map((place) => this.#watch(place)));
    // A watcher that fails is an error of `stop`.
    this.#work.catch(() => undefined);
  }

  snapshotsOf(node: string): number {
    return this.#snapshots.get(node) ?? 0;
  }

  get snapshots(): number {
    return [...this.#snapshots.values()].reduce((sum, count) => sum + count, 0);
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
            await this.#checkWrong(client, place.node, workload);
            await this.#checkBack(client, place.node, workload, highest);
          }
          this.#snapshots.set(place.node, this.snapshotsOf(place.node) + 1);
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

  async #checkWrong(client: pg.Client, node: string, workload: Workload): Promise<void> {
    if (workload.wrong === undefined) return;
    const { rows } = await client.query<{ wrong: string }>(workload.wrong);
    for (const { wrong } of rows) this.#saw(node, workload, 'wrong', wrong);
  }

  async #checkBack(
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
