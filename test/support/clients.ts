/**
 * The one generator of load: sessions on the leader that run workloads, stay open through faults,
 * and reconnect when theirs breaks. They take the node to write to and a seed, and give the
 * journal. Writers and workloads draw from generators of their own, so that a seed gives the same
 * transactions whatever the timing.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { parseEpochLsn } from '../../src/change/position.ts';
import { isRetriable } from '../../src/lifecycle.ts';
import type { Entry, Outcome } from './history.ts';
import { seeded } from './seed.ts';
import { until, untilMs } from './until.ts';
import type { Turn, Workload, Written } from './workloads/workload.ts';

export interface Place {
  readonly node: string;
  readonly url: string;
}

export interface ClientsOptions {
  readonly at: Place;
  readonly workloads: readonly Workload[];
  readonly seed: number;
  /** Sessions for each workload; default 2. */
  readonly writers?: number;
  /** The longest pause between two transactions of a writer; default 20. */
  readonly pauseMs?: number;
  /** Writers of later clients of one test have other numbers: no name is used twice. */
  readonly firstWriter?: number;
}

const connectMaxMs = 2_000;
const reconnectMs = 100;
const closeMaxMs = 2_000;
/** Long enough for a server that hangs, too short for a statement that is lost. */
const queryMaxMs = 60_000;
const pollMs = 20;
/** More would say the same. */
const surprisesMax = 20;

/** It is unknown whether the server did what was asked before it ended the session. */
const endOfSession = /^(08|57)/;

/** What servers that stop, start and change their role answer; the guard's error is among them. */
const expectedStates = /^(08|57|25006$|55000$)/;

export class Clients {
  readonly entries: Entry[] = [];
  /** Errors that no fault explains: the checker fails on any. */
  readonly surprises: string[] = [];
  readonly #options: ClientsOptions;
  readonly #open = new Set<pg.Client>();
  readonly #work: Promise<unknown>;
  #at: Place;
  #stopped = false;
  /** Pending while the clients are paused. */
  #running: Promise<void> = Promise.resolve();
  #release: () => void = () => undefined;
  #isPaused = false;
  /** Transactions that are under way. */
  #busy = 0;
  #acknowledged = 0;

  constructor(options: ClientsOptions) {
    this.#options = options;
    this.#at = options.at;
    const { workloads, writers = 2, firstWriter = 1 } = options;
    this.#work = Promise.all(
      workloads.flatMap((workload) =>
        Array.from({ length: writers }, (_, at) => this.#run(workload, firstWriter + at)),
      ),
    );
    // A writer that fails of a bug of its own is an error of `stop`.
    this.#work.catch(() => undefined);
  }

  get acknowledged(): number {
    return this.#acknowledged;
  }

  /** New sessions go there; those that are open stay where they are. */
  moveTo(place: Place): void {
    this.#at = place;
  }

  /** Ends the open sessions, as a load balancer does; their writers reconnect. */
  async cut(): Promise<void> {
    await Promise.all([...this.#open].map(closed));
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#release();
    await this.#work;
  }

  /** Resolves when no transaction is under way; none begins until `resume`. */
  async pause(): Promise<void> {
    // Writers that wait for an earlier pause to end must hear of the one `resume`.
    if (!this.#isPaused) {
      this.#isPaused = true;
      this.#running = new Promise((resolve) => {
        this.#release = resolve;
      });
    }
    await until('transactions of clients have ended', () => this.#busy, {
      reached: (busy) => busy === 0,
    });
  }

  resume(): void {
    this.#isPaused = false;
    this.#release();
  }

  /** Resolves when that many more transactions were acknowledged. */
  async progress(count: number, timeoutMs = untilMs): Promise<void> {
    const wanted = this.#acknowledged + count;
    await until(`${wanted} transactions of the clients`, () => this.#acknowledged, {
      ...{ pollMs, timeoutMs, reached: (acknowledged) => acknowledged >= wanted },
    });
  }

  async #run(workload: Workload, writer: number): Promise<void> {
    const random = seeded(this.#options.seed + 1_000 * writer + textSum(workload.name));
    for (let n = 0; !this.#stopped; ) {
      const place = this.#at;
      const client = sessionAt(place);
      try {
        await client.connect();
        this.#open.add(client);
        let usable = true;
        while (usable && !this.#stopped) {
          n += 1;
          usable = await this.#turn(workload, { client, writer, n, random }, place.node);
          await sleep(random() * (this.#options.pauseMs ?? 20));
        }
      } catch (error) {
        this.#consider(workload, error);
      }
      this.#open.delete(client);
      await closed(client);
      if (!this.#stopped) await sleep(reconnectMs);
    }
  }

  async #turn(workload: Workload, turn: Turn, node: string): Promise<boolean> {
    await this.#running;
    this.#busy += 1;
    try {
      return await this.#transaction(workload, turn, node);
    } finally {
      this.#busy -= 1;
    }
  }

  /** False when the session is of no use any more. */
  async #transaction(workload: Workload, turn: Turn, node: string): Promise<boolean> {
    const { client, writer, n } = turn;
    const note = (outcome: Outcome, written: Written, token: string | null): void => {
      const { adds = [], raises = [], reads = [] } = written;
      const at = token === null ? null : parseEpochLsn(token);
      const what = { workload: workload.name, writer, n, node, outcome, token: at };
      this.entries.push({ ...what, adds, raises, reads });
      if (outcome === 'ok') this.#acknowledged += 1;
    };
    let written: Written | null = null;
    let commits = false;
    try {
      await client.query('BEGIN');
      written = await workload.write(turn);
      commits = written.rollback !== true;
      const { command } = await client.query(commits ? 'COMMIT' : 'ROLLBACK');
      if (command !== 'COMMIT') note('fail', written, null);
    } catch (error) {
      this.#consider(workload, error);
      // The rows of a transaction that did not get so far are in no entry: the checker misses
      // them everywhere, which is what is right.
      if (written !== null) note(commits && breaks(error) ? 'unknown' : 'fail', written, null);
      if (breaks(error)) return false;
      await client.query('ROLLBACK');
      return !isRoleError(error);
    }
    if (!commits) return true;
    return this.#acknowledge(client, (token) => note('ok', written, token));
  }

  /** The commit was answered; its LSN is read afterwards, and may stay unknown. */
  async #acknowledge(client: pg.Client, note: (token: string | null) => void): Promise<boolean> {
    try {
      const { rows } = await client.query<{ token: string }>('SELECT understudy.token() AS token');
      note(rows[0]?.token ?? null);
      return true;
    } catch (error) {
      note(null);
      if (!breaks(error) && !isRoleError(error)) throw error;
      return false;
    }
  }

  #consider(workload: Workload, error: unknown): void {
    const code = codeOf(error);
    if (breaks(error) || expectedStates.test(code) || workload.mayFail?.includes(code)) return;
    if (this.surprises.length === surprisesMax) return;
    this.surprises.push(`${workload.name}: ${code} ${String(error)}`);
  }
}

function sessionAt({ url }: Place): pg.Client {
  const client = new pg.Client({
    connectionString: url,
    application_name: 'application',
    connectionTimeoutMillis: connectMaxMs,
    query_timeout: queryMaxMs,
  });
  // A connection that breaks while idle also fails the next query, which is where it is handled.
  client.on('error', () => undefined);
  return client;
}

/** A server that is frozen does not answer the end of a session: the socket is destroyed. */
async function closed(client: pg.Client): Promise<void> {
  const timer = setTimeout(() => {
    (
      client as unknown as { connection: { stream: { destroy(): void } } }
    ).connection.stream.destroy();
  }, closeMaxMs);
  await client.end().catch(() => undefined);
  clearTimeout(timer);
}

function codeOf(error: unknown): string {
  return error instanceof pg.DatabaseError ? (error.code ?? '') : '';
}

/** What pg says when an answer takes longer than `query_timeout`: the session is out of step. */
const answerIsLate = 'Query read timeout';

function breaks(error: unknown): boolean {
  if (error instanceof pg.DatabaseError) return endOfSession.test(error.code ?? '');
  return error instanceof Error && (isRetriable(error) || error.message === answerIsLate);
}

/** The node does not lead any more: applications search for the leader again. */
function isRoleError(error: unknown): boolean {
  return expectedStates.test(codeOf(error));
}

function textSum(text: string): number {
  return [...text].reduce((sum, letter) => (sum * 31 + (letter.codePointAt(0) ?? 0)) % 1_000, 7);
}
