/**
 * A fleet of two whose leader is written to all the time, for tests that break something under it.
 * Flows in: what a fleet is made of; flows out: `isExact`, which lets the writers rest and
 * compares: every row is the same on both nodes, everything that was acknowledged is there once,
 * and the agents are the processes they were. Then it writes on.
 */
import * as assert from 'uvu/assert';
import { type Fleet, type FleetOptions, startFleet } from './fleet.ts';
import type { FleetAgent } from './fleet-agent.ts';
import { Load, loadRows, loadTableNames, loadTables } from './load.ts';
import { seedOfRun } from './seed.ts';

/** More rounds and longer stalls where a run may take its time. */
export const isFull = process.env['UNDERSTUDY_TEST_FULL'] !== undefined;

export const seed = seedOfRun();

const patienceMs = 90_000;
const pollMs = 25;

export class FleetUnderLoad {
  readonly fleet: Fleet;
  readonly #padding: number;
  #load: Load;
  #writers = 1;
  #resting = false;

  private constructor(fleet: Fleet, padding: number) {
    this.fleet = fleet;
    this.#padding = padding;
    this.#load = this.#write();
  }

  /** `padding` are characters added to some rows, see load.ts. */
  static async start(
    options: Omit<FleetOptions, 'tables'>,
    padding = 300,
  ): Promise<FleetUnderLoad> {
    const fleet = await startFleet({ ...options, tables: loadTables });
    await fleet.startAgents();
    await fleet.sql('a', loadRows);
    return new FleetUnderLoad(fleet, padding);
  }

  get leader(): FleetAgent {
    return this.fleet.agent('a');
  }

  get follower(): FleetAgent {
    return this.fleet.agent('b');
  }

  /** Resolves when that many more journal entries were acknowledged by the leader's Postgres. */
  async progress(count: number): Promise<void> {
    await this.#load.progress(count);
  }

  /** Kills the leader's agent without a word and starts another. */
  async restartLeader(): Promise<void> {
    await this.leader.kill();
    await this.fleet.startAgent('a');
  }

  /** The journal entries that a node holds now. */
  async entries(node: 'a' | 'b'): Promise<number> {
    const [row] = await this.fleet.sql<{ n: string }>(node, 'SELECT count(*) AS n FROM journal');
    return Number(row?.n);
  }

  /** Resolves when that many more entries have come all the way to the follower. */
  async arrivals(count: number): Promise<void> {
    const wanted = (await this.entries('b')) + count;
    await this.until(async () => (await this.entries('b')) >= wanted, `${wanted} entries on b`);
  }

  async until(reached: () => Promise<boolean>, what: string): Promise<void> {
    const deadlineMs = Date.now() + patienceMs;
    while (!(await reached())) {
      assert.ok(Date.now() < deadlineMs, `never: ${what}\n${this.fleet.logs()}`);
      await new Promise((resolve) => setTimeout(resolve, pollMs));
    }
  }

  /** Nobody writes until the next `isExact` has compared. */
  async rest(): Promise<void> {
    await this.#load.stop();
    this.#resting = true;
  }

  async isExact(): Promise<void> {
    if (!this.#resting) await this.#load.progress(20);
    await this.rest();
    const { fleet } = this;
    await fleet.caughtUp();
    for (const table of loadTableNames) await fleet.assertSame(table);
    const rows = await fleet.sql<{ entry: string }>(
      'b',
      `SELECT writer || '/' || n AS entry FROM journal`,
    );
    const held = new Set(rows.map(({ entry }) => entry));
    assert.is(held.size, rows.length, 'no entry is there twice');
    const lost = [...this.#load.acked].filter((entry) => !held.has(entry));
    assert.equal(lost, [], 'no entry is lost');
    assert.not(this.leader.ended || this.follower.ended, fleet.logs());
    this.#load = this.#write();
    this.#resting = false;
  }

  async close(): Promise<void> {
    await this.#load.stop();
    await this.fleet.close();
  }

  /** Writers have names of their own in each load: the journal tells them apart. */
  #write(): Load {
    this.#writers += 10;
    return new Load({
      url: this.fleet.url('a'),
      firstWriter: this.#writers,
      seed: seed + this.#writers,
      padding: this.#padding,
    });
  }
}
