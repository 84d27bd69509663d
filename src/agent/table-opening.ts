/**
 * Lifts the write guard of a node that leads. Every table whose lock is free takes writes at once;
 * those that other sessions lock are named, and opened as soon as their lock is free: a busy table
 * delays neither the others nor the promotion. A leader that restarts opens what an earlier run
 * left guarded.
 */
import type { Client } from 'pg';
import type { NodeAccess } from '../fleet/node/node-access.ts';
import type { BusyTable } from '../follower/guard/guarded-tables.ts';
import { disarmGuard, openTables, whyClosed } from '../follower/write-guard.ts';
import type { Releasers } from '../lifecycle.ts';
import { sleepOrAbort } from '../waiting.ts';

/** Between two rounds over the tables that are left. */
const againMs = 500;
/** How often the log names them again. */
const logEveryMs = 60_000;

type OpenedNode = Pick<NodeAccess, 'cluster' | 'name'>;

export class TableOpening {
  readonly #node: OpenedNode;
  readonly #client: Client;
  readonly #steppedDown: AbortSignal;
  #busy: readonly BusyTable[];

  private constructor(
    node: OpenedNode,
    client: Client,
    steppedDown: AbortSignal,
    busy: readonly BusyTable[],
  ) {
    this.#node = node;
    this.#client = client;
    this.#steppedDown = steppedDown;
    this.#busy = busy;
  }

  /** Null when the epoch is lost: then nothing more is opened. */
  static async open(
    node: OpenedNode,
    releasers: Releasers,
    steppedDown: AbortSignal,
  ): Promise<TableOpening | null> {
    if (steppedDown.aborted) return null;
    const client = await node.cluster.openSession(releasers, node.name, 'opening');
    const isWanted = async (): Promise<boolean> => !steppedDown.aborted;
    try {
      const busy = await disarmGuard(client, { isWanted });
      return new TableOpening(node, client, steppedDown, busy);
    } catch (error) {
      if (steppedDown.aborted) return null;
      throw error;
    }
  }

  /** One line for each table that takes no writes yet. */
  async lacks(): Promise<readonly string[]> {
    const lines: string[] = [];
    for (const busy of this.#busy) lines.push(await whyClosed(this.#client, busy));
    return lines;
  }

  /** Until all tables are open, or `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { log, nowMs } = this.#node.cluster.around;
    const isWanted = async (): Promise<boolean> => !this.#steppedDown.aborted && !signal.aborted;
    let loggedMs = Number.NEGATIVE_INFINITY;
    for (; this.#busy.length > 0; await sleepOrAbort(againMs, signal)) {
      if (!(await isWanted())) return;
      if (nowMs() - loggedMs >= logEveryMs) {
        loggedMs = nowMs();
        log.warn(
          { node: this.#node.name, tables: await this.lacks() },
          'tables take no writes yet',
        );
      }
      this.#busy = await openTables(this.#client, this.#busy, { isWanted });
      if (this.#busy.length === 0) log.info({ node: this.#node.name }, 'all tables take writes');
    }
  }
}
