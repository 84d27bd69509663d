/**
 * A fleet whose leader is written to all the time, for tests that break something meanwhile. Flows
 * in: the fleet, and how it is written to; flows out: the proof, whenever asked for, that every
 * follower holds exactly what the leader acknowledged: nothing lost, nothing twice.
 */
import * as assert from 'uvu/assert';
import type { Fleet, NodeName } from './fleet.ts';
import { Load, type LoadOptions, loadRows, loadTableNames } from './load.ts';

/** Loads of one fleet share a journal: each takes names of its own. */
const writersPerLoad = 10;

export class LoadedFleet {
  readonly fleet: Fleet;
  readonly #options: Omit<LoadOptions, 'url' | 'firstWriter'>;
  readonly #leader: NodeName;
  #load: Load;
  #firstWriter = 1;

  private constructor(fleet: Fleet, leader: NodeName, options: Omit<LoadOptions, 'url'>) {
    this.fleet = fleet;
    this.#leader = leader;
    this.#options = options;
    this.#load = this.#begin();
  }

  /** The agents run and the tables of the load are there, empty. */
  static async begin(
    fleet: Fleet,
    options: Omit<LoadOptions, 'url' | 'firstWriter'> = {},
  ): Promise<LoadedFleet> {
    await fleet.sql('a', loadRows);
    return new LoadedFleet(fleet, 'a', options);
  }

  #begin(): Load {
    const { fleet } = this;
    return new Load({
      ...this.#options,
      url: fleet.url(this.#leader),
      firstWriter: this.#firstWriter,
    });
  }

  get load(): Load {
    return this.#load;
  }

  /** Writers go on until that many more commits were acknowledged. */
  progress(count: number): Promise<void> {
    return this.#load.progress(count);
  }

  /** Stops the writers for a comparison; afterwards they go on as others. */
  async isExact(): Promise<void> {
    await this.stop();
    const { fleet } = this;
    await fleet.caughtUp(this.#leader);
    for (const table of loadTableNames) await fleet.assertSame(table, this.#leader);
    for (const node of fleet.nodes) await this.#holdsAcknowledged(node);
    this.#firstWriter += writersPerLoad;
    this.#load = this.#begin();
  }

  async #holdsAcknowledged(node: NodeName): Promise<void> {
    const rows = await this.fleet.sql<{ entry: string }>(
      node,
      `SELECT writer || '/' || n AS entry FROM journal`,
    );
    const held = new Set(rows.map(({ entry }) => entry));
    assert.is(held.size, rows.length, `no entry is twice on ${node}`);
    const lost = [...this.#load.acked].filter((entry) => !held.has(entry));
    assert.equal(lost, [], `no entry is lost on ${node}`);
  }

  /** Idempotent. */
  stop(): Promise<void> {
    return this.#load.stop();
  }
}
