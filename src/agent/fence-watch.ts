/**
 * The watch that keeps a former leader from taking writes. It runs beside the attempts of an agent,
 * with a session and a reader of the control log of its own: it waits neither for what an attempt
 * has under way with Kafka or the registry, nor for the pause after a failed one. It probes the
 * node's server every second, reads which epoch the database leads by its own record, and arms the
 * write guard as soon as the control log names another node for a later one.
 */
import type { Client } from 'pg';
import { onLost } from '../catalog/postgres-session.ts';
import { type NodeIdentity, readNode } from '../catalog/understudy-schema.ts';
import { isDeposed } from '../control/claim.ts';
import type { ControlLog } from '../control/control-log.ts';
import { hasCode } from '../errors/understudy-error.ts';
import { serverSilent } from '../errors/unreachable.ts';
import { Cluster } from '../fleet/cluster.ts';
import { Unwanted } from '../follower/guard/guarded-tables.ts';
import { armGuard, guardState } from '../follower/write-guard.ts';
import { closeTimeoutMs, Releasers, runUntilStopped } from '../lifecycle.ts';
import type { Logger } from '../logger.ts';
import { interruptible, unlessAborted, WakeUp, withTimeout } from '../waiting.ts';
import { onlyDebug } from './wal-watch.ts';

/** Also how soon a server that was down is found. */
const probeEveryMs = 1_000;
/** The catalog answers within milliseconds; a broken link never does. */
const probeTimeoutMs = 10_000;
/** Then the arming begins once more with what is left, and the log names who is in the way. */
const armMaxMs = 10_000;
const backoff = { baseMs: probeEveryMs, capMs: probeEveryMs, steadyMs: 60_000 };

export const notTerminated = 'sessions that the write guard should end and may not';

export class FenceWatch {
  readonly #cluster: Cluster;
  readonly #node: string;
  readonly #log: Logger;

  constructor({ settings, around, kafka, registry }: Cluster, node: string) {
    this.#log = around.log;
    this.#node = node;
    const quiet = { ...around, log: onlyDebug(around.log) };
    this.#cluster = new Cluster(settings, quiet, kafka, registry);
  }

  /** Until `signal` aborts; a guard that is being armed is armed first. */
  async run(signal: AbortSignal): Promise<void> {
    const { log, sleep, random, nowMs } = this.#cluster.around;
    const attempt = (_: AbortSignal, working: () => void) => this.#attempt(signal, working);
    const name = `the watch over the guard of node ${this.#node}`;
    const options = { name, signal, log, backoff, sleep, random, now: nowMs };
    await runUntilStopped(attempt, options);
  }

  async #attempt(signal: AbortSignal, working: () => void): Promise<void> {
    const releasers = new Releasers(closeTimeoutMs);
    let fail: (error: unknown) => void = () => undefined;
    const failed = new Promise<never>((_, reject) => {
      fail = reject;
    });
    // The watch is raced with it; after that its rejection is of no use.
    failed.catch(() => undefined);
    try {
      const client = await this.#cluster.openSession(releasers, this.#node, 'fence');
      onLost(client, fail);
      working();
      await Promise.race([this.#watch({ client, releasers, fail }, signal), failed]);
    } finally {
      await releasers.close();
    }
  }

  async #watch(parts: WatchParts, signal: AbortSignal): Promise<void> {
    const { client } = parts;
    const changed = new WakeUp();
    let control: ControlLog | null = null;
    while (!signal.aborted) {
      const led = await withTimeout(this.#led(client), probeTimeoutMs, () => {
        return serverSilent(this.#node, probeTimeoutMs);
      });
      if (led !== null) {
        control ??= await this.#openControl(parts, changed, signal);
        await this.#judge(client, control, led);
      }
      await unlessAborted(changed.sleep(probeEveryMs), signal);
    }
  }

  /** The epoch that this database leads, as far as it knows; null where it follows. */
  async #led(client: Client): Promise<LedEpoch | null> {
    const identity = await readNode(client);
    const isOurs = identity?.cluster === this.#cluster.name && identity.name === this.#node;
    return isOurs && identity.role === 'leader' ? identity : null;
  }

  /** A broker that does not answer must not delay the end. */
  async #openControl(
    { releasers, fail }: WatchParts,
    changed: WakeUp,
    signal: AbortSignal,
  ): Promise<ControlLog> {
    const own = new Releasers(closeTimeoutMs);
    const opening = this.#cluster.openControl(own, null);
    try {
      const control = await interruptible(opening, signal);
      releasers.push('the control log', () => void own.close());
      control.onChange(() => changed.wake());
      control.ended.then((error) => error !== null && fail(error), fail);
      return control;
    } catch (error) {
      // Its failure is the one that is thrown, or nothing waits for it after an abort.
      opening.then(() => own.close()).catch(() => undefined);
      throw error;
    }
  }

  async #judge(client: Client, control: ControlLog, { streamId, epoch }: LedEpoch): Promise<void> {
    // The control log of another stream says nothing of this database.
    if (control.state.stream?.streamId !== streamId) return;
    const isFenced = (): boolean => isDeposed(control.state, this.#node, epoch);
    if (!isFenced() || (await guardState(client)).armed) return;
    const facts = { node: this.#node, epoch, leader: control.state.current?.node ?? null };
    this.#log.warn(facts, 'another node has claimed the lead: arming the write guard');
    // This node may come to lead again meanwhile, also by another process.
    const isWanted = async (): Promise<boolean> => {
      return isFenced() && (await this.#led(client))?.epoch === epoch;
    };
    try {
      const options = { terminates: true, maxWaitMs: armMaxMs, isWanted };
      const left = await armGuard(client, options);
      if (left.length > 0) this.#log.warn({ node: this.#node, sessions: left }, notTerminated);
      this.#log.info(facts, 'the write guard is armed');
    } catch (error) {
      if (error instanceof Unwanted) return;
      if (!hasCode(error, 'TIMED_OUT')) throw error;
      this.#log.warn({ ...facts, error }, 'the write guard is not armed on every table yet');
    }
  }
}

/** Of the database's own record. */
type LedEpoch = Pick<NodeIdentity, 'streamId' | 'epoch'>;

interface WatchParts {
  readonly client: Client;
  readonly releasers: Releasers;
  readonly fail: (error: unknown) => void;
}
