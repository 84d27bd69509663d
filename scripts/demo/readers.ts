/**
 * The shop's readers, on the followers, all the while. They count their reads, and collect what
 * must never be visible. One kind asserts that the shop adds up in a snapshot; the other takes the
 * newest acknowledged commit, waits for its token on a follower, and asserts that the next
 * statement finds it.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Client, DatabaseError } from 'pg';
import type { Journal } from './journal.ts';
import { checkShop } from './shop-invariants.ts';
import { connectTo, type ShopNode } from './shop-nodes.ts';

/** The reads of one node so far. */
export interface ReaderCounts {
  snapshots: number;
  /** Own writes that were found after the wait for their token. */
  ownWrites: number;
  waitedMs: number;
  waitedMsMax: number;
  /** Tokens whose write the failover discarded: refused with the error `lost`, as documented. */
  lostTokens: number;
}

const checkEveryMs = 150;
const ownWriteEveryMs = 250;
/** Far above any lag of a machine that keeps up; after a crash `lost` ends the wait earlier. */
const ownWriteTimeout = '20s';
const lostSqlState = 'UN001';
const violationsMax = 10;

export class Readers {
  readonly violations: string[] = [];
  readonly #counts = new Map<string, ReaderCounts>();
  readonly #journal: Journal;
  readonly #nowMs: () => number;
  readonly #running: Promise<unknown>;
  #stopped = false;
  #crashed = false;

  constructor(nodes: readonly ShopNode[], journal: Journal, nowMs: () => number) {
    this.#journal = journal;
    this.#nowMs = nowMs;
    this.#running = Promise.all(
      nodes.flatMap((node) => {
        const counts = {
          ...{ snapshots: 0, ownWrites: 0, waitedMs: 0, waitedMsMax: 0, lostTokens: 0 },
        };
        this.#counts.set(node.name, counts);
        const checks = this.#repeat(node, checkEveryMs, (client) =>
          this.#check(client, node, counts),
        );
        const owns = this.#repeat(node, ownWriteEveryMs, (client) =>
          this.#readOwnWrite(client, node, counts),
        );
        return [checks, owns];
      }),
    );
    // The story awaits `ended`, which reports it.
    this.#running.catch(() => undefined);
  }

  /** Rejects when a read fails: on a follower none may. */
  get ended(): Promise<unknown> {
    return this.#running;
  }

  of(node: string): ReaderCounts | undefined {
    return this.#counts.get(node);
  }

  total(): ReaderCounts {
    const all = [...this.#counts.values()];
    const sum = (pick: (counts: ReaderCounts) => number): number =>
      all.reduce((total, counts) => total + pick(counts), 0);
    return {
      snapshots: sum(({ snapshots }) => snapshots),
      ownWrites: sum(({ ownWrites }) => ownWrites),
      waitedMs: sum(({ waitedMs }) => waitedMs),
      waitedMsMax: Math.max(...all.map(({ waitedMsMax }) => waitedMsMax)),
      lostTokens: sum(({ lostTokens }) => lostTokens),
    };
  }

  /** From now on a token may belong to a write that the failover discards. */
  leaderCrashed(): void {
    this.#crashed = true;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }

  async #repeat(
    node: ShopNode,
    everyMs: number,
    read: (client: Client) => Promise<void>,
  ): Promise<void> {
    const client = await connectTo(node, 'reader');
    try {
      while (!this.#stopped) {
        await read(client);
        await sleep(everyMs);
      }
    } finally {
      // The reads are over: a lost connection does not matter.
      await client.end().catch(() => undefined);
    }
  }

  async #check(client: Client, node: ShopNode, counts: ReaderCounts): Promise<void> {
    const { violations } = await checkShop(client);
    counts.snapshots += 1;
    for (const violation of violations) this.#violated(`node ${node.name}: ${violation}`);
  }

  async #readOwnWrite(client: Client, node: ShopNode, counts: ReaderCounts): Promise<void> {
    const { latest } = this.#journal;
    if (latest === null) return;
    const { token, orderId } = latest;
    const fromMs = this.#nowMs();
    const visible = await this.#waitFor(client, token);
    if (visible === 'lost') {
      if (this.#crashed) counts.lostTokens += 1;
      else
        this.#violated(`node ${node.name}: wait_for(${token}) returned lost, without a failover`);
      return;
    }
    const waitedMs = this.#nowMs() - fromMs;
    const found = await client.query('SELECT FROM orders WHERE id = $1', [orderId]);
    const what = `node ${node.name}: order ${orderId} with token ${token}`;
    if (visible === 'timeout') this.#violated(`${what} was not there after ${ownWriteTimeout}`);
    else if (found.rowCount !== 1)
      this.#violated(`${what} is missing although wait_for returned true`);
    else {
      counts.ownWrites += 1;
      counts.waitedMs += waitedMs;
      counts.waitedMsMax = Math.max(counts.waitedMsMax, waitedMs);
    }
  }

  async #waitFor(client: Client, token: string): Promise<'visible' | 'timeout' | 'lost'> {
    try {
      const { rows } = await client.query<{ visible: boolean }>(
        'SELECT understudy.wait_for($1, $2::interval) AS visible',
        [token, ownWriteTimeout],
      );
      return rows[0]?.visible === true ? 'visible' : 'timeout';
    } catch (error) {
      if (error instanceof DatabaseError && error.code === lostSqlState) return 'lost';
      throw error;
    }
  }

  #violated(violation: string): void {
    if (this.violations.length === violationsMax || this.violations.includes(violation)) return;
    this.violations.push(violation);
  }
}
