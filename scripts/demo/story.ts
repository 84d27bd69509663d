/**
 * The acts of the demo, in their order, and whether every claim was proved. A failure of a task
 * that runs beside the acts (an agent that ends, an unexpected error of a writer or reader) ends
 * the story at once.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import { type EpochLsn, parseEpochLsn } from '../../src/change/position.ts';
import { loadCatalogue } from './catalogue.ts';
import { FleetView } from './fleet-view.ts';
import { Journal } from './journal.ts';
import { LiveTable } from './live-table.ts';
import {
  type ProofParts,
  proveAfter,
  proveCommits,
  proveCopies,
  proveLead,
  proveReads,
  proveSums,
  type Verdict,
} from './proof.ts';
import { Readers } from './readers.ts';
import { grouped, type Screen, seconds } from './screen.ts';
import { connectTo, connectToLeader, type ShopNode } from './shop-nodes.ts';
import type { Stage } from './stage.ts';
import type { Agent, Understudy } from './understudy-command.ts';
import { Writers } from './writers.ts';

const tradeMs = 9_000;
const tradeAfterMs = 7_000;
const firstCatchUp = '60s';
const writersReturnMaxMs = 30_000;
const pollMs = 50;
const pointLabel = 'before-the-crash';

interface Promotion {
  readonly node: string;
  readonly epoch: number;
  readonly lsn: string;
  readonly base: string;
  readonly steps: readonly { readonly step: string; readonly ms: number }[];
}

interface Trade {
  readonly journal: Journal;
  readonly writers: Writers;
  readonly readers: Readers;
  readonly fleet: FleetView;
  readonly table: LiveTable;
}

export class Story {
  readonly #stage: Stage;
  readonly #understudy: Understudy;
  readonly #screen: Screen;
  readonly #timings: [string, string][] = [];
  readonly #failed: Promise<never>;
  #fail: (error: unknown) => void = () => undefined;

  constructor(stage: Stage, understudy: Understudy, screen: Screen) {
    this.#stage = stage;
    this.#understudy = understudy;
    this.#screen = screen;
    this.#failed = new Promise((_, reject) => {
      this.#fail = reject;
    });
    // `play` reports it.
    this.#failed.catch(() => undefined);
  }

  /** True when every claim was proved. With `stay` the remaining agents continue to run. */
  play(stay: boolean): Promise<boolean> {
    return Promise.race([this.#acts(stay), this.#failed]);
  }

  async #acts(stay: boolean): Promise<boolean> {
    const [a, b, c] = this.#stage.nodes;
    if (a === undefined || b === undefined || c === undefined)
      throw new Error('the demo needs three nodes');
    const agents = await this.#createCluster();
    const trade = await this.#openShop(a, [b, c]);
    const point = await this.#namePoint();
    await this.#killLeader(a, trade);
    const promotion = await this.#promote(b, trade);
    const [agentOfA] = agents.splice(0, 1);
    if (agentOfA !== undefined) await this.#understudy.stopAgent(agentOfA);
    await this.#continueTrade(b, trade);
    const verdicts = await this.#prove(trade, promotion, point, [b, c]);
    if (!stay) await this.#closeUp(agents);
    return this.#sumUp(verdicts);
  }

  /** For a task beside the acts: its failure is a failure of the story. */
  #beside(running: Promise<unknown>): void {
    running.catch((error: unknown) => this.#fail(error));
  }

  async #createCluster(): Promise<Agent[]> {
    const understudy = this.#understudy;
    this.#screen.heading('2  A cluster', [
      'Three databases with the same empty tables become one cluster: node a leads and takes',
      'writes, b and c follow through the Kafka topic shop.changes. One agent serves each node.',
      'Every command below is the real one: `understudy` is `node dist/cli.js`.',
    ]);
    const check = await understudy.command(['check']);
    const init = await understudy.command(['init', '--leader', 'a']);
    this.#timings.push(['check', seconds(check.tookMs)], ['init', seconds(init.tookMs)]);
    const agents = this.#stage.nodes.map(({ name }) => understudy.runAgent(name));
    for (const agent of agents) this.#beside(understudy.agentsEnded(agent));
    return agents;
  }

  async #openShop(leader: ShopNode, followers: readonly ShopNode[]): Promise<Trade> {
    const screen = this.#screen;
    screen.heading('3  Business', [
      'Writers place and cancel orders on the leader: each is one transaction over orders, lines,',
      'stock and the balance of the customer. Readers check b and c all the while: does the shop',
      'add up in every snapshot, and is a write visible as soon as wait_for(token) returns?',
    ]);
    const startedAtMs = screen.elapsedMs();
    const { nodes } = this.#stage;
    const session = await connectToLeader(nodes, () => false);
    if (session?.node !== leader.name) throw new Error(`${session?.node} takes writes`);
    const catalogue = await loadCatalogue(session.client);
    const token = await tokenOf(session.client);
    await session.client.end();
    for (const follower of followers) await this.#caughtUp(follower, token);
    const took = seconds(screen.elapsedMs() - startedAtMs);
    screen.line(
      `  catalogue loaded on a, and visible on b and c (${took}, with the start of the agents)`,
    );
    const parts = { nowMs: Date.now, random: Math.random };
    const journal = new Journal();
    const writers = new Writers({ ...parts, nodes, catalogue, journal });
    const readers = new Readers(followers, journal, Date.now);
    const fleet = new FleetView(nodes, Date.now);
    const table = new LiveTable({ screen, fleet, writers, readers, journal, nowMs: Date.now });
    for (const running of [writers.ended, readers.ended, table.ended]) this.#beside(running);
    await sleep(tradeMs);
    return { journal, writers, readers, fleet, table };
  }

  async #caughtUp(follower: ShopNode, token: string): Promise<void> {
    const client = await connectTo(follower, 'reader');
    const { rows } = await client.query<{ visible: boolean }>(
      'SELECT understudy.wait_for($1, $2::interval) AS visible',
      [token, firstCatchUp],
    );
    await client.end();
    if (rows[0]?.visible === true) return;
    throw new Error(`node ${follower.name} has not reached ${token} within ${firstCatchUp}`);
  }

  async #namePoint(): Promise<{ readonly label: string; readonly at: EpochLsn }> {
    this.#screen.heading('4  A name for a moment', [
      'A named point marks the position directly after one transaction, the same on every node.',
    ]);
    const words = ['point', pointLabel];
    const { answer, tookMs } = await this.#understudy.json<{ lsn: string }>(words);
    this.#screen.line(`    the point ${pointLabel} is ${answer.lsn} (${seconds(tookMs)})`);
    return { label: pointLabel, at: positionOf(answer.lsn) };
  }

  async #killLeader(leader: ShopNode, { readers, journal }: Trade): Promise<void> {
    this.#screen.heading('5  The leader dies', [
      'kill -9 of the Postgres server of node a, in the middle of its work.',
    ]);
    const server = this.#stage.sandbox.postgres.find(({ name }) => name === leader.name);
    if (server === undefined) throw new Error(`no server ${leader.name}`);
    this.#screen.command(`kill -9 ${server.pid()}`);
    readers.leaderCrashed();
    await server.kill();
    const commits = grouped(journal.acknowledged);
    this.#screen.line(
      `    dead, after ${commits} acknowledged commits; its writers have no leader`,
    );
  }

  async #promote(understudyNode: ShopNode, { journal }: Trade): Promise<Promotion> {
    const screen = this.#screen;
    const { name } = understudyNode;
    screen.heading('6  The understudy is promoted', [
      `Node ${name} fences the old leader out of the log, applies the log to its end, and begins`,
      'an epoch of its own at a known LSN. Commits that never reached the log are lost: hence the',
      'option --allow-data-loss.',
    ]);
    const reason = 'the demo killed it';
    const { answer, tookMs } = await this.#understudy.json<Promotion>([
      ...['failover', name, '--allow-data-loss', '--reason', reason],
    ]);
    const steps = answer.steps.map(({ step, ms }) => `${step} ${ms} ms`);
    screen.line(`    node ${answer.node} leads epoch ${answer.epoch} from ${answer.lsn};`);
    screen.line(`    it continues epoch 1 at ${answer.base}, the end of the log`);
    screen.line(`    steps: ${steps.join(', ')}`);
    const inAgent = answer.steps.reduce((sum, { ms }) => sum + ms, 0);
    const untilMs = screen.elapsedMs() + writersReturnMaxMs;
    while (journal.lastToken(answer.epoch) === null) {
      if (screen.elapsedMs() > untilMs) throw new Error(`no writer has reached node ${name}`);
      await sleep(pollMs);
    }
    const pauseMs = journal.pauseBetweenMs(answer.epoch - 1, answer.epoch);
    const pause = pauseMs === null ? '?' : seconds(pauseMs);
    screen.line(`    writers are back, ${pause} after the last commit on a`);
    this.#timings.push(
      ['failover, as a command', seconds(tookMs)],
      ['  of it in the agent', seconds(inAgent)],
      ['no writes, from the last commit on a to the first on b', pause],
    );
    return answer;
  }

  async #continueTrade(leader: ShopNode, { writers, readers, table, fleet }: Trade): Promise<void> {
    this.#screen.heading('7  Business continues', [
      `The writers found node ${leader.name} as libpq does with target_session_attrs=read-write.`,
    ]);
    await sleep(tradeAfterMs);
    // Writers first: readers still wait for tokens, which become visible without new writes too.
    await writers.stop();
    await readers.stop();
    await table.stop();
    await fleet.close();
    this.#screen.line('  writers and readers have stopped');
  }

  async #prove(
    { journal, readers }: Trade,
    promotion: Promotion,
    point: ProofParts['point'],
    [leaderNode, followerNode]: readonly [ShopNode, ShopNode],
  ): Promise<Verdict[]> {
    const { epoch } = promotion;
    const base = positionOf(promotion.base);
    this.#screen.heading('8  Proof', [
      'The journal of the writers has every acknowledged commit, independent of any database.',
    ]);
    const sessions = await Promise.all(
      [leaderNode, followerNode].map((node) => connectTo(node, 'proof')),
    );
    const [onLeader, onFollower] = sessions;
    if (onLeader === undefined || onFollower === undefined)
      throw new Error('the proof needs two sessions');
    const leader = { name: leaderNode.name, role: 'leader', client: onLeader } as const;
    const follower = { name: followerNode.name, role: 'follower', client: onFollower } as const;
    const parts = { journal, readers, leader, follower, epoch, base, point };
    const verdicts: Verdict[] = [];
    const add = (verdict: Verdict): void => {
      verdicts.push(verdict);
      this.#show(verdict);
    };
    const sums = await proveSums(parts);
    add(await proveLead(parts));
    const commits = await proveCommits(parts);
    for (const verdict of commits.verdicts) add(verdict);
    add(proveAfter(parts, commits.orders));
    add(proveReads(parts));
    add(sums);
    add(await this.#verify(followerNode, leaderNode));
    add(await proveCopies(parts));
    await Promise.all(sessions.map((client) => client.end()));
    this.#timings.push(['commits acknowledged', grouped(commits.orders.acknowledged)]);
    return verdicts;
  }

  async #verify(follower: ShopNode, leader: ShopNode): Promise<Verdict> {
    const differs = 8;
    const { text, exit, tookMs } = await this.#understudy.command(
      ['verify', follower.name],
      [0, differs],
    );
    this.#timings.push(['verify', seconds(tookMs)]);
    const details = exit === 0 ? [] : text.trimEnd().split('\n');
    const claim = `understudy verify: ${follower.name} has exactly the rows of ${leader.name}`;
    return { claim, ok: exit === 0, details };
  }

  #show({ claim, ok, details }: Verdict): void {
    const screen = this.#screen;
    const sign = ok ? screen.style('✓', 'green', 'bold') : screen.style('✗', 'red', 'bold');
    screen.line(`  ${sign} ${claim}`);
    for (const detail of details) screen.line(`      ${screen.style(detail, ok ? 'dim' : 'red')}`);
  }

  async #closeUp(agents: readonly Agent[]): Promise<void> {
    this.#screen.heading('9  Curtain', []);
    await Promise.all(agents.map((agent) => this.#understudy.stopAgent(agent)));
  }

  #sumUp(verdicts: readonly Verdict[]): boolean {
    const screen = this.#screen;
    const proved = verdicts.filter(({ ok }) => ok).length;
    const all = proved === verdicts.length;
    screen.line('');
    const total: [string, string] = ['the whole demo', seconds(screen.elapsedMs())];
    const rows = [...this.#timings, total];
    const width = Math.max(...rows.map(([what]) => what.length));
    for (const [what, value] of rows) screen.line(`  ${what.padEnd(width)}  ${value}`);
    screen.line('');
    const text = `${proved} of ${verdicts.length} claims proved`;
    screen.line(screen.style(text, 'bold', all ? 'green' : 'red'));
    return all;
  }
}

async function tokenOf(client: Client): Promise<string> {
  const { rows } = await client.query<{ token: string }>('SELECT understudy.token() AS token');
  return rows[0]?.token ?? '';
}

function positionOf(text: string): EpochLsn {
  const at = parseEpochLsn(text);
  if (at === null) throw new Error(`not an epoch and LSN: ${text}`);
  return at;
}
