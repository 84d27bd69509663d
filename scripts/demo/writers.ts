/**
 * The shop's writers: several connections to the node that takes writes. They place orders from the
 * catalogue, and journal every acknowledged commit. After a lost connection they search for the
 * leader; a commit that was running then is journaled as unknown and not retried. Every other error
 * is a failure of the demo.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client, QueryResult } from 'pg';
import type { Catalogue } from './catalogue.ts';
import type { Commit, Journal } from './journal.ts';
import { type Buyer, cancelOrder, type OrderItem, placeOrder } from './order-transactions.ts';
import { connectToLeader, isConnectionLost, type ShopNode } from './shop-nodes.ts';

export interface WritersParts {
  readonly nodes: readonly ShopNode[];
  readonly catalogue: Catalogue;
  readonly journal: Journal;
  readonly random: () => number;
  readonly nowMs: () => number;
}

const writerCount = 6;
/** Between two orders of a writer: two cores serve three servers, Kafka and the agents. */
const pauseMs = 12;
const linesMax = 5;
const piecesMax = 4;
const newCustomerShare = 0.08;
const cancelShare = 0.12;
/** Orders of its own that a writer may still cancel. */
const cancellableMax = 20;

export class Writers {
  readonly #parts: WritersParts;
  readonly #connected = new Map<number, string>();
  readonly #running: Promise<unknown>;
  #stopped = false;
  #newCustomers = 0;

  constructor(parts: WritersParts) {
    this.#parts = parts;
    const writers = Array.from({ length: writerCount }, (_, index) => this.#write(index));
    this.#running = Promise.all(writers);
    // The story awaits `ended`, which reports it.
    this.#running.catch(() => undefined);
  }

  get count(): number {
    return writerCount;
  }

  get stopped(): boolean {
    return this.#stopped;
  }

  /** The node of each open connection. */
  get connectedTo(): readonly string[] {
    return [...this.#connected.values()];
  }

  /** Rejects with the first failure; resolves only after `stop`. */
  get ended(): Promise<unknown> {
    return this.#running;
  }

  /** Each writer finishes its transaction first. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }

  async #write(index: number): Promise<void> {
    const { nodes } = this.#parts;
    while (!this.#stopped) {
      const session = await connectToLeader(nodes, () => this.#stopped);
      if (session === null) return;
      this.#connected.set(index, session.node);
      try {
        await this.#writeTo(session.client);
      } catch (error) {
        if (!isConnectionLost(error)) throw error;
      } finally {
        this.#connected.delete(index);
        // The error above, if any, was handled or is thrown.
        await session.client.end().catch(() => undefined);
      }
    }
  }

  async #writeTo(client: Client): Promise<void> {
    const { journal, nowMs, random } = this.#parts;
    const cancellable: Commit[] = [];
    while (!this.#stopped) {
      const cancelled = random() < cancelShare ? cancellable.shift() : undefined;
      await client.query('BEGIN');
      const commit =
        cancelled === undefined
          ? await placeOrder(client, this.#buyer(), this.#items())
          : await cancelOrder(client, cancelled);
      const entry = journal.pending(commit);
      journal.acknowledge(entry, await commitWithToken(client), nowMs());
      if (commit.state.status === 'placed') cancellable.push(commit);
      if (cancellable.length > cancellableMax) cancellable.shift();
      await sleep(pauseMs * 2 * random());
    }
  }

  #buyer(): Buyer {
    const { catalogue, random } = this.#parts;
    if (random() < newCustomerShare) {
      this.#newCustomers += 1;
      return { kind: 'new', email: `new${this.#newCustomers}@example.com` };
    }
    const { customerIds } = catalogue;
    return { kind: 'known', id: customerIds[Math.floor(random() * customerIds.length)] ?? '' };
  }

  #items(): OrderItem[] {
    const { catalogue, random } = this.#parts;
    const wanted = 1 + Math.floor(random() * linesMax);
    const { skus } = catalogue;
    const chosen = new Set<string>();
    while (chosen.size < wanted) chosen.add(skus[Math.floor(random() * skus.length)] ?? '');
    return [...chosen].map((sku) => ({ sku, quantity: 1 + Math.floor(random() * piecesMax) }));
  }
}

/**
 * In one round trip, so that no acknowledged commit is without a token: the answer to COMMIT
 * arrives with it. pg returns one result for each statement.
 */
async function commitWithToken(client: Client): Promise<string> {
  const results = (await client.query('COMMIT; SELECT understudy.token() AS token')) as unknown;
  const [committed, answer] = results as QueryResult<{ token: string }>[];
  if (committed?.command !== 'COMMIT') throw new Error('COMMIT ended in a rollback');
  return answer?.rows[0]?.token ?? '';
}
