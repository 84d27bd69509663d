/**
 * The watch over the WAL that a leader's slot keeps. Flows in: a node, looked at every few seconds
 * in a session of its own, so that it goes on while Kafka is away and nothing streams; flows out:
 * the newest look, and lines in the log while Postgres still has the WAL. It decides nothing: what
 * a lost slot means for the stream is found by whoever starts it.
 */
import type { Client } from 'pg';
import { connectPostgres, onLost } from '../catalog/postgres-session.ts';
import { readNode } from '../catalog/understudy-schema.ts';
import { UnderstudyError } from '../errors/understudy-error.ts';
import type { Cluster } from '../fleet/cluster.ts';
import { type Retention, RetentionReports } from '../fleet/status/retained-wal.ts';
import { readSlotWal, type SlotWal } from '../leader/stream/slot.ts';
import { closeTimeoutMs, Releasers, runUntilStopped } from '../lifecycle.ts';
import type { Logger } from '../logger.ts';
import { slotPrefix } from '../topic/records/layout.ts';
import { sleepOrAbort, withTimeout } from '../waiting.ts';

/** A gigabyte a second is far more than a leader writes; a limit is reached in minutes. */
const lookEveryMs = 5_000;
/** The catalog answers within milliseconds; a link that swallows everything never does. */
const lookMaxMs = 10_000;
/** A server that does not answer is not asked more often than it would be looked at. */
const backoff = { baseMs: lookEveryMs, capMs: 60_000, steadyMs: 60_000 };

/** `slot` is null where the leader has none; the whole is null while the node does not lead. */
export type WalLook = { readonly slot: SlotWal | null } | null;

export class WalWatch {
  readonly node: string;
  readonly #cluster: Cluster;
  readonly #reports = new RetentionReports();
  #latest: WalLook = null;

  constructor(cluster: Cluster, node: string) {
    this.#cluster = cluster;
    this.node = node;
  }

  get latest(): WalLook {
    return this.#latest;
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
    const over = new AbortController();
    try {
      const client = await connectPostgres(this.#cluster.settings.nodeUrl(this.node), {
        applicationName: `understudy ${this.node} watch`,
      });
      releasers.push('the session of the watch', () => client.end());
      const ended = new Promise<never>((_, reject) => {
        onLost(client, reject);
        // A look that nobody answers must not hold up the end.
        signal.addEventListener('abort', () => reject(signal.reason), { signal: over.signal });
      });
      working();
      await Promise.race([this.#keepLooking(client, signal), ended]);
    } finally {
      over.abort();
      this.#latest = null;
      await releasers.close();
    }
  }

  async #keepLooking(client: Client, signal: AbortSignal): Promise<void> {
    const { sleep } = this.#cluster.around;
    while (!signal.aborted) {
      await withTimeout(this.#look(client), lookMaxMs, () => silent(this.node));
      await sleepOrAbort(lookEveryMs, signal, sleep);
    }
  }

  async #look(client: Client): Promise<void> {
    const identity = await readNode(client);
    if (identity?.role !== 'leader') {
      this.#latest = null;
      return;
    }
    const [slot = null] = await readSlotWal(client, slotPrefix(this.#cluster.name));
    this.#latest = { slot };
    const retention = this.#reports.next(slot, this.#cluster.around.nowMs());
    if (retention !== null) this.#say(retention, slot);
  }

  #say({ level, message, hint }: Retention, slot: SlotWal | null): void {
    const { log } = this.#cluster.around;
    const fields = { node: this.node, ...(slot !== null && { slot }), ...(hint && { hint }) };
    if (level === 'fine') log.info(fields, `${message} now`);
    else if (level === 'warning') log.warn(fields, message);
    else log.error(fields, message);
  }
}

function silent(node: string): UnderstudyError {
  return new UnderstudyError(
    'POSTGRES_UNREACHABLE',
    `the server of node ${node} does not say what its slot keeps`,
    'Look at its log and its load.',
  );
}

/** A server that is away is the agent's news, not this watch's. */
function onlyDebug(log: Logger): Pick<Logger, 'info' | 'warn' | 'error'> {
  const debug: Logger['debug'] = (fields, message) => log.debug(fields, message);
  return { info: debug, warn: debug, error: debug };
}
