/**
 * A fleet that gets nodes after its init, on a broker that cleans. Flows in: tables, partitions and
 * how long tombstones are kept; flows out: a leader a, and nodes b and c that are configured and
 * were never initialised, with waits for cleaning and for a node to be exact.
 */
import * as assert from 'uvu/assert';
import { parseEpochLsn } from '../../src/change/position.ts';
import { answeredStatus } from './answered-status.ts';
import type { CleaningBroker } from './cleaning-broker.ts';
import { type Fleet, type FleetOptions, type NodeName, patienceMs, startFleet } from './fleet.ts';
import { Forger } from './forger.ts';
import type { Stack } from './stack.ts';

export interface GrowingOptions {
  readonly stack: Stack;
  readonly broker: CleaningBroker;
  readonly tables: string;
  /** Whether the nodes that come later get the tables by hand too. */
  readonly tablesByHand?: boolean;
  readonly partitions: number;
  readonly servers?: FleetOptions['servers'];
  /** Default: nothing is built that slowly. */
  readonly deleteRetentionMs?: number;
  /** For how long nothing is taken for a newer record; default: as short as the broker can. */
  readonly compactionLagMs?: number;
}

const exactMaxMs = 60_000;
const lookMs = 200;
const tickTable = 'CREATE TABLE tick (id int PRIMARY KEY, n int)';

export class GrowingFleet {
  readonly fleet: Fleet;
  readonly #options: GrowingOptions;
  #ticks = 0;

  private constructor(fleet: Fleet, options: GrowingOptions) {
    this.fleet = fleet;
    this.#options = options;
  }

  static async begin(options: GrowingOptions): Promise<GrowingFleet> {
    const { stack, broker, partitions, servers = {}, deleteRetentionMs = 600_000 } = options;
    const { brokers } = broker;
    const tables = `${options.tables}; ${tickTable}`;
    const made = options.tablesByHand === false ? { tablesOn: { a: tables } } : { tables };
    const shape = { stack, servers, nodes: 3, brokers, partitions } as const;
    const fleet = await startFleet({ ...shape, ...made, init: false });
    const { nodes, ...rest } = fleet.config as { nodes: Record<string, object> };
    const topic = broker.topicSettings(deleteRetentionMs, options.compactionLagMs);
    const kafka = { brokers, partitions, topic };
    await fleet.configure({ ...rest, nodes: { a: nodes['a'] }, kafka });
    const { code, stdout } = await fleet.cli('init');
    assert.is(code, 0, stdout);
    await fleet.configure({ ...rest, nodes, kafka });
    await fleet.startAgent('a');
    return new GrowingFleet(fleet, options);
  }

  /** A row that is written again and again: segments are left, and cleaned. */
  async tick(leader: NodeName = 'a'): Promise<void> {
    this.#ticks += 1;
    await this.fleet.sql(
      leader,
      'INSERT INTO tick VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET n = excluded.n',
      [this.#ticks],
    );
  }

  /** Until the topic holds what the leader has committed. */
  async published(): Promise<void> {
    const { stack, broker, partitions } = this.#options;
    const servers = { brokers: broker.brokers, registryUrl: stack.registryUrl };
    const forger = new Forger(servers, this.fleet, partitions);
    const lsn = parseEpochLsn(await this.fleet.token())?.lsn ?? 0n;
    for (const deadlineMs = Date.now() + patienceMs; ; ) {
      const { upto } = await forger.lastPoint().catch(() => ({ upto: 0n }));
      if (upto >= lsn) return;
      assert.ok(Date.now() < deadlineMs, `the leader does not publish\n${this.fleet.logs()}`);
      await new Promise((resolve) => setTimeout(resolve, lookMs));
    }
  }

  /** Until no more than `recordsMax` records of the relation are left. */
  async cleaned(relation: string, recordsMax: number): Promise<void> {
    await this.published();
    const { broker, partitions } = this.#options;
    await broker.cleans(
      this.fleet,
      partitions,
      () => this.tick(),
      (records) => records.filter(({ key }) => key.includes(relation)).length <= recordsMax,
    );
  }

  async statusOf(node: NodeName) {
    const { json } = await answeredStatus(this.fleet);
    return json.nodes.find(({ name }: { name: string }) => name === node);
  }

  async exact(node: NodeName): Promise<void> {
    for (const deadlineMs = Date.now() + exactMaxMs; ; ) {
      const status = await this.statusOf(node);
      if (status.exact === true) return;
      const late = Date.now() > deadlineMs || this.fleet.agent(node).ended;
      assert.not(late, `${JSON.stringify(status)}\n${this.fleet.logs()}`);
      await new Promise((resolve) => setTimeout(resolve, lookMs));
    }
  }

  async assertSame(tables: readonly string[], leader: NodeName, node: NodeName): Promise<void> {
    for (const table of tables) {
      await this.fleet.assertSame(`(SELECT * FROM ${table})`, leader, [node]);
    }
  }
}
