/**
 * The present role, LSN, lag and rate of each node, read from the databases themselves. A node that
 * does not answer is down. Rates are averages over a few seconds, because a busy backend updates
 * its statistics about once a second.
 */
import type { Client } from 'pg';
import { type EpochLsn, parseEpochLsn } from '../../src/change/position.ts';
import { connectTo, type ShopNode } from './shop-nodes.ts';

export interface NodeView {
  readonly name: string;
  readonly role: 'leader' | 'follower' | 'down';
  /** The end of the WAL of a leader; the position of a follower. */
  readonly at: EpochLsn | null;
  readonly orders: number | null;
  readonly rowsPerSecond: number | null;
  /** The age of the newest transaction on a follower; 0 when it has all that the leader has. */
  readonly lagMs: number | null;
  readonly lagBytes: number | null;
}

interface Answer {
  readonly role: 'leader' | 'follower';
  readonly at: string | null;
  readonly age_ms: string | null;
  readonly orders: string;
  readonly changed: string;
}

/**
 * An application's role cannot read the schema understudy; the demo owns the databases.
 * The age is that of the newest transaction on the follower, by the clock of this machine.
 */
const viewSql = `
  SELECT n.role,
    CASE n.role WHEN 'leader' THEN n.epoch || ':' || pg_current_wal_insert_lsn()
                ELSE p.epoch || ':' || p.upto END AS at,
    extract(epoch FROM clock_timestamp()) * 1000 - p.commit_time_us / 1000 AS age_ms,
    (SELECT count(*) FROM orders) AS orders,
    (SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables
     WHERE schemaname = 'public') AS changed
  FROM understudy.node n LEFT JOIN understudy.position p ON true`;

const rateWindowMs = 3_000;
/** A server that hangs is shown as down and does not delay the others. */
const answerMaxMs = 2_000;

interface Sample {
  readonly atMs: number;
  readonly changed: number;
}

export class FleetView {
  readonly #nodes: readonly ShopNode[];
  readonly #nowMs: () => number;
  readonly #clients = new Map<string, Client>();
  readonly #samples = new Map<string, Sample[]>();
  readonly #down = new Set<string>();

  constructor(nodes: readonly ShopNode[], nowMs: () => number) {
    this.#nodes = nodes;
    this.#nowMs = nowMs;
  }

  async read(): Promise<readonly NodeView[]> {
    const answers = await Promise.all(this.#nodes.map((node) => this.#query(node)));
    const leaderAt = answers.find((answer) => answer?.role === 'leader')?.at ?? null;
    return this.#nodes.map((node, index) =>
      this.#viewOf(node, answers[index] ?? null, leaderAt === null ? null : parse(leaderAt)),
    );
  }

  async close(): Promise<void> {
    await Promise.allSettled([...this.#clients.values()].map((client) => client.end()));
  }

  /** A node that is down stays down: the demo restarts none. */
  async #query(node: ShopNode): Promise<Answer | null> {
    if (this.#down.has(node.name)) return null;
    try {
      let client = this.#clients.get(node.name);
      if (client === undefined) {
        client = await connectTo(node, 'monitor');
        this.#clients.set(node.name, client);
      }
      const query = { text: viewSql, query_timeout: answerMaxMs };
      const { rows } = await client.query<Answer>(query);
      return rows[0] ?? null;
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      this.#down.add(node.name);
      return null;
    }
  }

  #viewOf(node: ShopNode, answer: Answer | null, leaderAt: EpochLsn | null): NodeView {
    const { name } = node;
    if (answer === null) {
      const unknown = { at: null, orders: null, rowsPerSecond: null, lagMs: null, lagBytes: null };
      return { name, role: 'down', ...unknown };
    }
    const { role } = answer;
    const at = answer.at === null ? null : parse(answer.at);
    const lagBytes = role === 'leader' ? null : distance(at, leaderAt);
    const ageMs = Math.max(0, Number(answer.age_ms));
    return {
      name,
      role,
      at,
      orders: Number(answer.orders),
      rowsPerSecond: this.#rate(name, Number(answer.changed)),
      lagMs: lagBytes === null || lagBytes === 0 ? lagBytes : ageMs,
      lagBytes,
    };
  }

  #rate(name: string, changed: number): number | null {
    const nowMs = this.#nowMs();
    const kept = (this.#samples.get(name) ?? []).filter(({ atMs }) => nowMs - atMs < rateWindowMs);
    kept.push({ atMs: nowMs, changed });
    this.#samples.set(name, kept);
    const [oldest] = kept;
    if (oldest === undefined || oldest.atMs === nowMs) return null;
    return ((changed - oldest.changed) * 1000) / (nowMs - oldest.atMs);
  }
}

function parse(text: string): EpochLsn {
  const at = parseEpochLsn(text);
  if (at === null) throw new Error(`not an epoch and LSN: ${text}`);
  return at;
}

/** LSNs of two epochs belong to two servers and are not comparable. */
function distance(at: EpochLsn | null, leaderAt: EpochLsn | null): number | null {
  if (at === null || leaderAt === null || at.epoch !== leaderAt.epoch) return null;
  return Math.max(0, Number(leaderAt.lsn - at.lsn));
}
