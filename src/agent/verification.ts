/**
 * Compares followers with the leader at one LSN, while writes go on. Flows in: the followers to
 * compare; flows out: per table whether its rows are the leader's. The followers' agents are asked
 * to stand still, the leader's slot machinery names an LSN and gives a snapshot of exactly what is
 * below it, the agents go there, and as soon as each node's snapshot is open they are let go on:
 * reading takes as long as it takes, holding up nobody but TRUNCATE and schema changes.
 */
import type { Client } from 'pg';
import { readNode } from '../catalog/understudy-schema.ts';
import { type EpochLsn, formatEpochLsn } from '../change/position.ts';
import type { ControlLog } from '../control/control-log.ts';
import type { ControlState } from '../control/control-state.ts';
import { UnderstudyError } from '../errors.ts';
import { Releasers } from '../lifecycle.ts';
import { compareNode, type NodeComparison } from '../verify/compare.ts';
import { openFollowerSnapshot, openLeaderSnapshot } from '../verify/node-snapshot.ts';
import type { PublishedTable } from '../verify/published-tables.ts';
import { digestTable, type TableDigest } from '../verify/table-digest.ts';
import { askAgent } from './agent-question.ts';
import type { Cluster } from './cluster.ts';
import { leaderOf, openFleetLog, openMember } from './member-session.ts';

export interface VerificationOptions {
  /** Empty is every follower. */
  readonly nodes: readonly string[];
  readonly signal: AbortSignal;
  /** One line for people, every few seconds at most. */
  readonly onProgress: (line: string) => void;
}

export interface Verification {
  readonly lsn: EpochLsn;
  readonly equal: boolean;
  readonly nodes: readonly NodeComparison[];
}

/** An agent answers within the time of one transaction that it is applying. */
const holdTimeoutMs = 10_000;
/**
 * These two together stay below the 60 s after which an agent goes on by itself: an LSN that is
 * reached later would be left again before the snapshot is open.
 */
const slotTimeoutMs = 20_000;
const reachTimeoutMs = 30_000;
/** For people who watch: often enough to see that it moves. */
const progressEveryMs = 2_000;

interface NodeSession {
  readonly name: string;
  readonly client: Client;
}

export async function verifyFleet(
  cluster: Cluster,
  options: VerificationOptions,
): Promise<Verification> {
  const releasers = new Releasers();
  try {
    const control = await openFleetLog(cluster, releasers);
    const { leader, epoch, followers } = chooseNodes(control.state, cluster, options.nodes);
    const open = async (name: string): Promise<NodeSession> => {
      return { name, client: await openMember(cluster, releasers, name, 'verify') };
    };
    // All are waited for, so that no session is opened after the others were closed.
    const opened = await Promise.allSettled([leader, ...followers].map(open));
    const [leading, ...following] = opened.map((session) => {
      if (session.status === 'rejected') throw session.reason;
      return session.value;
    });
    if (leading === undefined) throw new Error('the leader is the first node');
    for (const { name, client } of following) await requireFollower(client, name, leader);
    const verifying = new Verifying(cluster, control, leading, epoch, options);
    return await verifying.run(following);
  } finally {
    // Whatever cannot be closed is gone already: the answer, or the first error, says more.
    await releasers.close();
  }
}

interface ChosenNodes {
  readonly leader: string;
  readonly epoch: number;
  readonly followers: readonly string[];
}

function chooseNodes(state: ControlState, cluster: Cluster, named: readonly string[]): ChosenNodes {
  const leader = leaderOf(state, cluster.name);
  if (named.includes(leader.node)) {
    throw new UnderstudyError(
      'PREREQUISITE',
      `node ${leader.node} leads: it is what the others are compared with`,
      `Name followers, or none for all: understudy verify`,
    );
  }
  const { nodeNames } = cluster.settings;
  const followers = named.length > 0 ? named : nodeNames.filter((name) => name !== leader.node);
  return { leader: leader.node, epoch: leader.epoch, followers };
}

/** A former leader stands in an epoch of its own, and no agent makes it follow. */
async function requireFollower(client: Client, name: string, leader: string): Promise<void> {
  const identity = await readNode(client);
  if (identity?.role === 'follower') return;
  throw new UnderstudyError(
    'PREREQUISITE',
    `node ${name} led before node ${leader} and does not follow: its rows are of no common LSN`,
    'Name the nodes to compare: understudy verify <node>…',
  );
}

class Verifying {
  readonly #cluster: Cluster;
  readonly #control: ControlLog;
  readonly #leader: NodeSession;
  readonly #epoch: number;
  readonly #options: VerificationOptions;
  /** One request a node, so that their steps and answers have keys of their own. */
  readonly #requests = new Map<string, string>();
  /** Followers that were asked to stand still and not yet to go on. */
  readonly #held = new Set<string>();
  readonly #failed = new AbortController();
  readonly #signal: AbortSignal;
  readonly #progress: Progress;

  constructor(
    cluster: Cluster,
    control: ControlLog,
    leader: NodeSession,
    epoch: number,
    options: VerificationOptions,
  ) {
    this.#cluster = cluster;
    this.#control = control;
    this.#leader = leader;
    this.#epoch = epoch;
    this.#options = options;
    this.#signal = AbortSignal.any([options.signal, this.#failed.signal]);
    this.#progress = new Progress(options.onProgress, cluster.around.nowMs);
  }

  async run(followers: readonly NodeSession[]): Promise<Verification> {
    const { onProgress } = this.#options;
    try {
      onProgress(`asking ${namesOf(followers)} to stand still`);
      await this.#all(followers.map(({ name }) => this.#hold(name)));
      onProgress(`taking a snapshot of ${this.#leader.name}`);
      const snapshot = await this.#openLeaderSnapshot();
      const at = { epoch: this.#epoch, lsn: snapshot.lsn };
      onProgress(`waiting for ${namesOf(followers)} at ${formatEpochLsn(at)}`);
      const tables = await this.#all(followers.map((follower) => this.#openAt(follower, at)));
      onProgress(`comparing the rows at ${formatEpochLsn(at)}`);
      const [leader = [], ...others] = await this.#all([
        this.#digest(this.#leader, snapshot.tables),
        ...followers.map((follower, i) => this.#digest(follower, tables[i] ?? [])),
      ]);
      const nodes = followers.map(({ name }, i) => compareNode(name, leader, others[i] ?? []));
      return { lsn: at, equal: nodes.every(({ equal }) => equal), nodes };
    } finally {
      await this.#releaseAll();
    }
  }

  async #hold(node: string): Promise<void> {
    this.#held.add(node);
    await this.#ask(node, 'hold', {}, holdTimeoutMs, (cause) => {
      return new UnderstudyError(
        'TIMED_OUT',
        `the agent of node ${node} does not answer`,
        `Start it: understudy run ${node}`,
        cause,
      );
    });
  }

  #openLeaderSnapshot() {
    const { name, client } = this.#leader;
    const { settings, around } = this.#cluster;
    return openLeaderSnapshot({
      url: settings.nodeUrl(name),
      applicationName: `understudy ${name} verify snapshot`,
      client,
      slot: `understudy_verify_${around.randomId().replaceAll('-', '').slice(0, 16)}`,
      timeoutMs: slotTimeoutMs,
      signal: this.#signal,
    });
  }

  /** The node stands still only until its snapshot is open. */
  async #openAt(follower: NodeSession, at: EpochLsn): Promise<readonly PublishedTable[]> {
    const { name, client } = follower;
    const to = formatEpochLsn(at);
    const late = (cause: unknown): UnderstudyError => notThere(name, to, cause);
    const result = await this.#ask(name, 'go', { to }, reachTimeoutMs, late);
    if (result !== to) throw notThere(name, to, null);
    const tables = await openFollowerSnapshot(client, name, at);
    await this.#release(name);
    return tables;
  }

  /** Gives where the node says it stands. */
  async #ask(
    node: string,
    step: 'hold' | 'go',
    args: { readonly to?: string },
    timeoutMs: number,
    late: (cause: unknown) => UnderstudyError,
  ): Promise<string | null> {
    const question = { id: this.#requestOf(node), step, verb: 'hold', node, args };
    const { around } = this.#cluster;
    const options = { timeoutMs, signal: this.#signal, late, around };
    const result = await askAgent(this.#control, question, options);
    const at = typeof result === 'object' && result !== null && 'at' in result ? result.at : null;
    return typeof at === 'string' ? at : null;
  }

  #requestOf(node: string): string {
    const id = this.#requests.get(node) ?? this.#cluster.around.randomId();
    this.#requests.set(node, id);
    return id;
  }

  /**
   * All of them, or the first error after all have ended, which it makes happen soon: what is still
   * under way when an error is told would go on in connections that are being closed.
   */
  async #all<Result>(steps: readonly Promise<Result>[]): Promise<Result[]> {
    const watched = steps.map((step) =>
      step.catch((error: unknown) => {
        this.#failed.abort(error);
        throw error;
      }),
    );
    const outcomes = await Promise.allSettled(watched);
    return outcomes.map((outcome) => {
      if (outcome.status === 'fulfilled') return outcome.value;
      throw this.#signal.reason;
    });
  }

  async #release(node: string): Promise<void> {
    await this.#control.append({
      kind: 'request',
      id: this.#requestOf(node),
      step: 'release',
      verb: 'hold',
      node,
      args: {},
      time: new Date(this.#cluster.around.nowMs()).toISOString(),
    });
    this.#held.delete(node);
  }

  /** What cannot be released any more goes on by itself within a minute. */
  async #releaseAll(): Promise<void> {
    const { log } = this.#cluster.around;
    for (const node of [...this.#held]) {
      const [outcome] = await Promise.allSettled([this.#release(node)]);
      if (outcome.status === 'fulfilled') continue;
      log.warn({ node, error: outcome.reason }, 'could not be told to go on; it will by itself');
    }
  }

  async #digest(
    { name, client }: NodeSession,
    tables: readonly PublishedTable[],
  ): Promise<TableDigest[]> {
    const signal = this.#signal;
    const progress = this.#progress.node(name, tables.length);
    const digests: TableDigest[] = [];
    for (const table of tables) {
      digests.push(await digestTable(client, table, { signal, onRows: progress.onRows }));
      progress.onTable();
    }
    await client.query('COMMIT');
    return digests;
  }
}

function namesOf(nodes: readonly NodeSession[]): string {
  return nodes.map(({ name }) => name).join(', ') || 'nobody';
}

function notThere(node: string, to: string, cause: unknown): UnderstudyError {
  return new UnderstudyError(
    'TIMED_OUT',
    `node ${node} did not get to ${to} within ${reachTimeoutMs} ms`,
    `See how far it is behind (understudy status), wait for it: understudy wait ${node} --at ${to}`,
    cause,
  );
}

/** Counts per node and says, every few seconds, how far all of them are. */
class Progress {
  readonly #tell: (line: string) => void;
  readonly #nowMs: () => number;
  readonly #parts: { name: string; done: number; tables: number; rows: bigint }[] = [];
  #toldMs: number;

  constructor(tell: (line: string) => void, nowMs: () => number) {
    this.#tell = tell;
    this.#nowMs = nowMs;
    this.#toldMs = nowMs();
  }

  node(name: string, tables: number): { onRows: (rows: bigint) => void; onTable: () => void } {
    const part = { name, done: 0, tables, rows: 0n };
    this.#parts.push(part);
    return {
      onRows: (rows) => {
        part.rows += rows;
        this.#maybeTell();
      },
      onTable: () => {
        part.done += 1;
      },
    };
  }

  #maybeTell(): void {
    const nowMs = this.#nowMs();
    if (nowMs - this.#toldMs < progressEveryMs) return;
    this.#toldMs = nowMs;
    const parts = this.#parts.map(
      ({ name, done, tables, rows }) => `${name} ${done}/${tables} tables, ${rows} rows`,
    );
    this.#tell(parts.join('; '));
  }
}
