/**
 * The verb `verify`: compares followers with the leader at one LSN, while writes continue. It
 * returns for each table whether a follower's rows are the leader's, and the keys of those that are
 * not. The followers' agents are asked to hold; the creation of a slot on the leader gives an LSN
 * and a snapshot of exactly the transactions below it; the followers go to that LSN and are
 * released as soon as each one's snapshot is open. Reading the rows then blocks only TRUNCATE and
 * schema changes.
 */
import type { Client } from 'pg';
import { readNode } from '../../catalog/understudy-schema.ts';
import { type EpochLsn, formatEpochLsn } from '../../change/position.ts';
import type { ControlLog } from '../../control/control-log.ts';
import { bug } from '../../errors/bug.ts';
import { rowsNotExact } from '../../errors/follower.ts';
import { formerLeaderNotComparable } from '../../errors/node-state.ts';
import { holdTimeout, snapshotNotReached } from '../../errors/timed-out.ts';
import type { UnderstudyError } from '../../errors/understudy-error.ts';
import { readBootstrap } from '../../follower/state/bootstrap-state.ts';
import { deleteDoubts, saveDoubt } from '../../follower/state/doubts.ts';
import { readPosition } from '../../follower/state/follower-state.ts';
import { readPendingRebuild } from '../../follower/state/rebuild-state.ts';
import { Releasers } from '../../lifecycle.ts';
import { compareNode, type NodeComparison } from '../../verify/compare.ts';
import {
  type DifferenceOptions,
  findDifferences,
  type OpenNode,
} from '../../verify/different-rows.ts';
import { openFollowerSnapshot, openLeaderSnapshot } from '../../verify/node-snapshot.ts';
import { Progress, type ProgressState } from '../../verify/progress.ts';
import { digestTable, type TableDigest } from '../../verify/table-digest.ts';
import type { Cluster } from '../cluster.ts';
import { type NodeSession, openFleetLog, openMember } from '../node/member-session.ts';
import { requireLeaderAgent } from '../node/node-lock.ts';
import { askAgent } from '../node/requests.ts';
import { requireCurrentSchema } from '../node/schema-upgrade.ts';
import { backfillingText, buildingText, rebuildText } from '../status/progress-text.ts';
import { chooseNodes, type LeftOut } from './judge-verified-nodes.ts';

interface VerificationOptions {
  /** Empty is every follower. */
  readonly nodes: readonly string[];
  /** The number of keys to report for each table; 0 searches for none. */
  readonly keysMax: number;
  /** Also reports their rows, which may be secret. */
  readonly showRows: boolean;
  readonly signal: AbortSignal;
  /** Receives each stage as it begins, one line for people. */
  readonly onStage: (line: string) => void;
  /** Called every few seconds of reading. */
  readonly onProgress: (state: ProgressState) => void;
}

export interface Verification {
  readonly lsn: EpochLsn;
  readonly leader: string;
  readonly equal: boolean;
  readonly nodes: readonly NodeComparison[];
  readonly leftOut: readonly LeftOut[];
  /** Tables of the leader that are not in the stream: nothing was compared of them. */
  readonly notCompared: readonly string[];
}

/** An agent answers within the time of one transaction that it is applying. */
const holdTimeoutMs = 10_000;
/**
 * Both together stay below the 60 s after which an agent releases itself: from an LSN that is
 * reached later the follower would move on before its snapshot is open.
 */
const snapshotSlotTimeoutMs = 20_000;
const reachTimeoutMs = 30_000;

export async function verifyFleet(
  cluster: Cluster,
  options: VerificationOptions,
): Promise<Verification> {
  const releasers = new Releasers();
  try {
    const control = await openFleetLog(cluster, releasers);
    const chosen = chooseNodes(control.state, cluster, options.nodes);
    const { leader, epoch, followers, leftOut } = chosen;
    const open = async (name: string): Promise<NodeSession> => {
      const client = await openMember(cluster, releasers, name, 'verify');
      await requireCurrentSchema(cluster, name, client);
      return { name, client };
    };
    // Waits for all, so that no session is opened after the others were closed.
    const opened = await Promise.allSettled([leader, ...followers].map(open));
    const [leading, ...following] = opened.map((session) => {
      if (session.status === 'rejected') throw session.reason;
      return session.value;
    });
    if (leading === undefined) throw bug('no session on the leader was opened');
    for (const { name, client } of following) await requireFollower(client, name, leader);
    const what = 'no follower would reach a snapshot of it';
    await requireLeaderAgent(leading, what, cluster.around.sleep);
    const verifying = new Verifying(cluster, control, leading, epoch, options);
    return { ...(await verifying.run(following)), leftOut };
  } finally {
    // A failure to close is ignored: the answer, or the first error, matters more.
    await releasers.close();
  }
}

/** A former leader has a position in its own epoch, and no agent makes it follow. */
async function requireFollower(client: Client, name: string, leader: string): Promise<void> {
  const identity = await readNode(client);
  if (identity?.role === 'follower') {
    const lacks = await whyNotExact(client);
    if (lacks !== null) throw rowsNotExact(name, lacks);
    return;
  }
  throw formerLeaderNotComparable(name, leader);
}

async function whyNotExact(client: Client): Promise<string | null> {
  const rebuild = await readPendingRebuild(client);
  if (rebuild !== null) return rebuildText(rebuild);
  const building = await readBootstrap(client);
  if (building !== null) return buildingText(building, false);
  return backfillingText((await readPosition(client))?.unfinished ?? []);
}

class Verifying {
  readonly #cluster: Cluster;
  readonly #control: ControlLog;
  readonly #leader: NodeSession;
  readonly #epoch: number;
  readonly #options: VerificationOptions;
  /** One request for each node, so that steps and answers have keys of their own. */
  readonly #requests = new Map<string, string>();
  /** Followers that were asked to hold and are not released yet. */
  readonly #held = new Set<string>();
  readonly #failed = new AbortController();
  readonly #signal: AbortSignal;

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
  }

  async run(followers: readonly NodeSession[]): Promise<Omit<Verification, 'leftOut'>> {
    const { onStage } = this.#options;
    const leader = this.#leader.name;
    try {
      onStage(`holding ${namesOf(followers)}`);
      await this.#all(followers.map(({ name }) => this.#hold(name)));
      onStage(`taking a snapshot of ${leader}`);
      const snapshot = await this.#openLeaderSnapshot();
      const at = { epoch: this.#epoch, lsn: snapshot.lsn };
      onStage(`waiting until ${namesOf(followers)} reach ${formatEpochLsn(at)}`);
      const open = await this.#all(followers.map((follower) => this.#openAt(follower, at)));
      onStage(`comparing the rows at ${formatEpochLsn(at)}`);
      const nodes = await this.#compare({ ...this.#leader, tables: snapshot.tables }, open);
      const equal = nodes.every((node) => node.equal);
      return { lsn: at, leader, equal, nodes, notCompared: snapshot.outside };
    } finally {
      await this.#releaseAll();
    }
  }

  async #compare(
    leader: OpenNode,
    followers: readonly OpenNode[],
  ): Promise<readonly NodeComparison[]> {
    const progress = this.#progress('comparing');
    const [there = [], ...here] = await this.#all(
      [leader, ...followers].map((node) => this.#digest(node, progress)),
    );
    const options: DifferenceOptions = {
      ...this.#options,
      signal: this.#signal,
      progress: (what) => this.#progress(what),
      all: (steps) => this.#all(steps),
    };
    const nodes: NodeComparison[] = [];
    for (const [at, follower] of followers.entries()) {
      const node = compareNode(follower.name, there, here[at] ?? []);
      nodes.push(node.equal ? node : await findDifferences(leader, follower, node, options));
      // The leader's stays open for the next follower, this one's is no longer needed.
      await follower.client.query('COMMIT');
      await noteResult(follower.client, nodes[at]);
    }
    return nodes;
  }

  async #hold(node: string): Promise<void> {
    this.#held.add(node);
    await this.#ask(node, 'hold', {}, holdTimeoutMs, (cause) => {
      return holdTimeout(node, holdTimeoutMs, cause);
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
      timeoutMs: snapshotSlotTimeoutMs,
      signal: this.#signal,
    });
  }

  /** The node holds only until its snapshot is open. */
  async #openAt(follower: NodeSession, at: EpochLsn): Promise<OpenNode> {
    const { name, client } = follower;
    const to = formatEpochLsn(at);
    const late = (cause: unknown): UnderstudyError => {
      return snapshotNotReached(name, to, reachTimeoutMs, cause);
    };
    const result = await this.#ask(name, 'go', { to }, reachTimeoutMs, late);
    if (result !== to) throw late(null);
    const tables = await openFollowerSnapshot(client, name, at);
    await this.#release(name);
    return { name, client, tables };
  }

  /** Returns the position that the node reports. */
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
   * The results of all steps, or the first error once all steps have ended; after an error the
   * others are aborted. A step that was still running then would use connections that are closed.
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

  /** A follower that cannot be released here releases itself within a minute. */
  async #releaseAll(): Promise<void> {
    const { log } = this.#cluster.around;
    for (const node of [...this.#held]) {
      const [outcome] = await Promise.allSettled([this.#release(node)]);
      if (outcome.status === 'fulfilled') continue;
      log.warn({ node, error: outcome.reason }, 'could not release a follower: it releases itself');
    }
  }

  #progress(what: string): Progress {
    return new Progress(what, this.#options.onProgress, this.#cluster.around.nowMs);
  }

  async #digest({ name, client, tables }: OpenNode, all: Progress): Promise<TableDigest[]> {
    const progress = all.node(name, tables);
    const digests: TableDigest[] = [];
    for (const table of tables) {
      const { onRead } = progress;
      digests.push(await digestTable(client, table, { signal: this.#signal, onRead }));
      progress.onTable();
    }
    return digests;
  }
}

/** For `status` and `failover`. All rows were compared, so it replaces earlier results. */
async function noteResult(client: Client, node: NodeComparison | undefined): Promise<void> {
  if (node === undefined || node.equal) return deleteDoubts(client);
  const tables = node.tables.flatMap(({ table, difference }) => (difference === null ? [] : table));
  const what = `verify found rows that are not the leader’s in ${tables.join(', ')}`;
  await saveDoubt(client, { kind: 'different', what });
}

function namesOf(nodes: readonly NodeSession[]): string {
  return nodes.map(({ name }) => name).join(', ') || 'no node';
}
