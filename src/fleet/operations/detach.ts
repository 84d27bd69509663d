/**
 * The verb `detach`: makes a follower a database of its own, at a position of the log or at the
 * node's own. The node's agent performs every step, asked through the control log; where none runs,
 * or it dies meanwhile, this process takes the node's lock and performs, or completes, the same.
 * Repeated after a failure it continues where that stopped.
 */
import type { Client } from 'pg';
import { type NodeIdentity, readNode } from '../../catalog/understudy-schema.ts';
import { compareEpochLsn, type EpochLsn, formatEpochLsn } from '../../change/position.ts';
import { ownerOf } from '../../control/claim.ts';
import type { ControlLog } from '../../control/control-log.ts';
import type { RecordOf } from '../../control/control-records.ts';
import { notInitialised } from '../../errors/cluster.ts';
import { detachedAt } from '../../errors/follower.ts';
import {
  databaseOfOtherStream,
  leaderNotDetachable,
  notFollower,
} from '../../errors/node-state.ts';
import { agentTimeout, logTooShort } from '../../errors/timed-out.ts';
import type { UnderstudyError } from '../../errors/understudy-error.ts';
import { readDetached, readPosition } from '../../follower/state/follower-state.ts';
import { Releasers } from '../../lifecycle.ts';
import { readLogEnd } from '../../topic/log-end.ts';
import { RecordDecoder } from '../../topic/records/decoder.ts';
import { sleepOrAbort } from '../../waiting.ts';
import type { Cluster } from '../cluster.ts';
import { openFleetLog, requireMember } from '../node/member-session.ts';
import { isLocked, lockNode } from '../node/node-lock.ts';
import { askAgent, detachWaitMs } from '../node/requests.ts';
import { requireCurrentSchema } from '../node/schema-upgrade.ts';
import {
  type DetachResult,
  detachedResult,
  finishDetaching,
  requirePosition,
} from './detach-steps.ts';
import { byAgentOrHere, type StandIn } from './stand-in.ts';

interface DetachRequest {
  readonly node: string;
  /** Null is the node's own position. */
  readonly at: ((control: ControlLog) => Promise<EpochLsn>) | null;
  /** How long to wait until the log holds the position. */
  readonly timeoutMs: number;
  /** Ends the wait; an agent that has begun continues. */
  readonly signal: AbortSignal;
}

/** Between two polls of the end of the log, and of whether the asked agent still runs. */
const pollMs = 500;

export async function detach(
  cluster: Cluster,
  request: DetachRequest,
  standIn: StandIn,
  people: (line: string) => void,
): Promise<DetachResult> {
  const releasers = new Releasers();
  try {
    const control = await openFleetLog(cluster, releasers);
    await control.verify();
    const client = await cluster.openSession(releasers, request.node, 'detach');
    const parts = { cluster, control, client, request, standIn, people, releasers };
    return await new Detaching(parts).run();
  } finally {
    await releasers.close();
  }
}

interface DetachingParts {
  readonly cluster: Cluster;
  readonly control: ControlLog;
  /** On the node's database, of the replica role. */
  readonly client: Client;
  readonly request: DetachRequest;
  readonly standIn: StandIn;
  readonly people: (line: string) => void;
  readonly releasers: Releasers;
}

class Detaching {
  readonly #cluster: Cluster;
  readonly #control: ControlLog;
  readonly #client: Client;
  readonly #request: DetachRequest;
  readonly #standIn: StandIn;
  readonly #people: (line: string) => void;
  readonly #releasers: Releasers;

  constructor(parts: DetachingParts) {
    this.#cluster = parts.cluster;
    this.#control = parts.control;
    this.#client = parts.client;
    this.#request = parts.request;
    this.#standIn = parts.standIn;
    this.#people = parts.people;
    this.#releasers = parts.releasers;
  }

  async run(): Promise<DetachResult> {
    const { node, at } = this.#request;
    const begun = await this.#begun();
    const to = at === null ? null : await at(this.#control);
    if (begun !== null) {
      if (to !== null) requireSame(node, begun.at, to);
      return begun.isOver ? detachedResult(node, begun.at) : this.#finish(begun.at);
    }
    await this.#requireFollower(to);
    // rule: detach-at-an-lsn-of-the-log
    if (to !== null) await this.#waitForLog(to);
    this.#people(`detaching node ${node}${to === null ? '' : ` at ${formatEpochLsn(to)}`}`);
    return byAgentOrHere({
      isServed: () => isLocked(this.#client),
      ask: () => this.#ask(to),
      here: () => this.#here(to),
    });
  }

  /** An agent that has ended may have begun it. */
  async #here(to: EpochLsn | null): Promise<DetachResult> {
    const { node } = this.#request;
    const left = await this.#begun();
    if (left !== null) return left.isOver ? detachedResult(node, left.at) : this.#finish(left.at);
    this.#people(`no agent serves node ${node}: detaching it from here`);
    return this.#standIn.detach(this.#cluster, node, to);
  }

  /** The state of an earlier detach of this node; null when there was none. */
  async #begun(): Promise<{ readonly at: EpochLsn; readonly isOver: boolean } | null> {
    const { node } = this.#request;
    await this.#control.verify();
    const { state } = this.#control;
    const found = await readNode(this.#client);
    const record = state.detached.get(node);
    if (state.stream === null) throw notInitialised(this.#cluster.name);
    if (!isOfStream(found, state.stream, node)) {
      // Without the schema, or of a newer cluster: nothing of this one is left in it.
      if (record !== undefined) return { at: record.at, isOver: true };
      requireMember(found, this.#cluster.name, node);
      throw databaseOfOtherStream(node);
    }
    await requireCurrentSchema(this.#cluster, node, this.#client);
    const at = await readDetached(this.#client);
    if (at !== null) return { at, isOver: false };
    // An older copy of the database is not the one that was detached.
    if (record !== undefined) throw detachedAt(node, record.at);
    return null;
  }

  async #requireFollower(to: EpochLsn | null): Promise<void> {
    const { node } = this.#request;
    if (ownerOf(this.#control.state)?.node === node) throw leaderNotDetachable(node);
    const identity = await readNode(this.#client);
    const position = await readPosition(this.#client);
    if (identity?.role !== 'follower' || position === null) throw notFollower(node);
    if (to !== null && compareEpochLsn(position.at, to) > 0) {
      requirePosition(node, position.at, to);
    }
  }

  /** Until the log holds the position, no delayed change is applied early for its sake. */
  async #waitForLog(to: EpochLsn): Promise<void> {
    const { around, registry } = this.#cluster;
    const { timeoutMs, signal } = this.#request;
    const partitions = this.#control.state.stream?.partitions ?? 1;
    const reader = this.#cluster.openReader(this.#releasers, partitions);
    const decoder = new RecordDecoder(registry);
    const deadlineMs = around.nowMs() + timeoutMs;
    for (;;) {
      const { checkpoint } = await readLogEnd(reader, decoder, await reader.watermarks());
      if (checkpoint !== null && compareEpochLsn(checkpoint.at, to) >= 0) return;
      if (around.nowMs() >= deadlineMs) {
        const end = checkpoint === null ? null : formatEpochLsn(checkpoint.at);
        throw logTooShort(formatEpochLsn(to), end, timeoutMs);
      }
      await around.sleep(pollMs, signal);
    }
  }

  /** Null when the agent ended without an answer. */
  async #ask(to: EpochLsn | null): Promise<DetachResult | null> {
    const { node } = this.#request;
    const { around } = this.#cluster;
    const ended = new AbortController();
    const answered = new AbortController();
    const watching = this.#watchAgent(ended, answered.signal);
    const args = to === null ? {} : { to: formatEpochLsn(to) };
    const question = { id: around.randomId(), step: 'start', verb: 'detach', node, args };
    const signal = AbortSignal.any([this.#request.signal, ended.signal]);
    const late = (cause: unknown): UnderstudyError => {
      return agentTimeout(node, 'detach', detachWaitMs, cause);
    };
    const options = { timeoutMs: detachWaitMs, signal, late, around };
    try {
      return (await askAgent(this.#control, question, options)) as unknown as DetachResult;
    } catch (error) {
      if (ended.signal.aborted && !this.#request.signal.aborted) return null;
      throw error;
    } finally {
      answered.abort();
      await watching;
    }
  }

  /** Aborts `ended` once no session holds the node's lock at two polls in a row. */
  async #watchAgent(ended: AbortController, answered: AbortSignal): Promise<void> {
    for (let absent = 0; !answered.aborted; ) {
      await sleepOrAbort(pollMs, answered, this.#cluster.around.sleep);
      absent = answered.aborted || (await isLocked(this.#client)) ? 0 : absent + 1;
      if (absent < 2) continue;
      ended.abort(new Error('the agent has ended'));
      return;
    }
  }

  async #finish(at: EpochLsn): Promise<DetachResult> {
    const { node } = this.#request;
    const { settings } = this.#cluster;
    this.#people(`node ${node} stopped following at ${formatEpochLsn(at)}: completing its detach`);
    const lock = await lockNode(settings.nodeUrl(node), settings.maintenanceDatabase, node);
    this.#releasers.push(`the lock of ${node}`, () => lock.release());
    const detached = {
      cluster: this.#cluster,
      control: this.#control,
      name: node,
      client: this.#client,
    };
    return finishDetaching(detached, at);
  }
}

function isOfStream(found: NodeIdentity | null, stream: RecordOf<'stream'>, node: string): boolean {
  return found?.streamId === stream.streamId && found.name === node;
}

function requireSame(node: string, at: EpochLsn, to: EpochLsn): void {
  if (compareEpochLsn(at, to) !== 0) throw detachedAt(node, at);
}
