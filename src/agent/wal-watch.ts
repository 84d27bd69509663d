/**
 * The watch over the WAL that a leader's slot keeps. It polls the node every few seconds in a
 * session of its own, so that it continues while Kafka is unreachable and nothing streams, and logs
 * what the slot keeps while Postgres still has the WAL. It decides nothing: the next start of the
 * leader finds out what a lost slot means for the stream.
 */
import type { Client } from 'pg';
import { connectPostgres, endSession, onLost } from '../catalog/postgres-session.ts';
import { readNode } from '../catalog/understudy-schema.ts';
import { serverSilent } from '../errors/unreachable.ts';
import type { Cluster } from '../fleet/cluster.ts';
import { type Retention, RetentionReports } from '../fleet/status/retained-wal.ts';
import { readSlotWal, type SlotWal } from '../leader/stream/slot.ts';
import { closeTimeoutMs, Releasers, runUntilStopped } from '../lifecycle.ts';
import type { Logger } from '../logger.ts';
import { slotPattern } from '../topic/records/layout.ts';
import { interruptible, sleepOrAbort, withTimeout } from '../waiting.ts';

/** A gigabyte a second is far more than a leader writes; a limit is reached in minutes. */
const pollEveryMs = 5_000;
/** The catalog answers within milliseconds; a broken link never does. */
const pollTimeoutMs = 10_000;
/** A server that does not answer is not tried more often than it is polled. */
const backoff = { baseMs: pollEveryMs, capMs: 10_000, steadyMs: 60_000 };

/** `slot` is null where the leader has none; the whole is null while the node does not lead. */
export type WalReading = { readonly slot: SlotWal | null } | null;

export class WalWatch {
  readonly node: string;
  readonly #cluster: Cluster;
  readonly #reports = new RetentionReports();
  #latest: WalReading = null;
  #answeredMs: number | null = null;

  constructor(cluster: Cluster, node: string) {
    this.#cluster = cluster;
    this.node = node;
  }

  get latest(): WalReading {
    return this.#latest;
  }

  /** When the node's Postgres last answered a poll. */
  get answeredMs(): number | null {
    return this.#answeredMs;
  }

  /** Until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { log, sleep, random, nowMs } = this.#cluster.around;
    const attempt = (_: AbortSignal, working: () => void) => this.#attempt(signal, working);
    const name = `the watch over the WAL of node ${this.node}`;
    const options = { name, signal, log: onlyDebug(log), backoff, sleep, random, now: nowMs };
    await runUntilStopped(attempt, options);
  }

  async #attempt(signal: AbortSignal, working: () => void): Promise<void> {
    const releasers = new Releasers(closeTimeoutMs);
    try {
      const client = await connectPostgres(this.#cluster.settings.nodeUrl(this.node), {
        applicationName: `understudy ${this.node} watch`,
      });
      releasers.push('the session of the watch', () => endSession(client));
      const lost = new Promise<never>((_, reject) => onLost(client, reject));
      working();
      // A poll without an answer must not delay the end.
      await interruptible(Promise.race([this.#keepPolling(client, signal), lost]), signal);
    } finally {
      this.#latest = null;
      await releasers.close();
    }
  }

  async #keepPolling(client: Client, signal: AbortSignal): Promise<void> {
    const { sleep } = this.#cluster.around;
    while (!signal.aborted) {
      await withTimeout(this.#poll(client), pollTimeoutMs, () => {
        return serverSilent(this.node, pollTimeoutMs);
      });
      await sleepOrAbort(pollEveryMs, signal, sleep);
    }
  }

  async #poll(client: Client): Promise<void> {
    const identity = await readNode(client);
    this.#answeredMs = this.#cluster.around.nowMs();
    if (identity?.role !== 'leader') {
      this.#latest = null;
      return;
    }
    const [slot = null] = await readSlotWal(client, slotPattern(this.#cluster.name));
    this.#latest = { slot };
    const retention = this.#reports.next(slot, this.#cluster.around.nowMs());
    if (retention !== null) this.#report(retention, slot);
  }

  #report({ level, message, hint }: Retention, slot: SlotWal | null): void {
    const { log } = this.#cluster.around;
    const kept = { node: this.node, retention: message, ...(slot !== null && { slot }) };
    const fields = hint === '' ? kept : { ...kept, hint };
    if (level === 'fine') log.info(fields, 'the slot keeps little WAL again');
    else if (level === 'warning') log.warn(fields, 'the slot keeps much WAL');
    else if (level === 'urgent') log.error(fields, 'the slot keeps too much WAL');
    else log.error(fields, 'the slot is lost');
  }
}

/** The agent reports what is unreachable; in a watch that is only for debugging. */
export function onlyDebug(log: Logger): Logger {
  const debug: Logger['debug'] = (fields, message) => log.debug(fields, message);
  return {
    debug,
    info: debug,
    warn: debug,
    error: debug,
    child: (fields) => onlyDebug(log.child(fields)),
  };
}
