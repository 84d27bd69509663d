/**
 * One Postgres server of the sandbox, created by its own initdb, so that each has another system
 * identifier (which a copied data directory would share, and which distinguishes a promoted node
 * from its former leader). It is ready when it has answered a SELECT, and can be stopped, killed
 * and restarted with the same port and data. It listens on 127.0.0.1 only, has no Unix socket, and
 * requires the password.
 */
import { chownSync, mkdirSync, writeFileSync } from 'node:fs';
import { appendFile, chmod, chown, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { waitUntilGone } from './clean-up.ts';
import { freePorts } from './ports.ts';
import type { PostgresBinaries } from './postgres-binaries.ts';
import { childrenOf, identify, type ProcessIdentity, signalProcess } from './process-identity.ts';
import type { OsUser, ProcessLedger, StartedProcess } from './process-ledger.ts';
import {
  endWithin,
  logSince,
  logSize,
  portWasTaken,
  startTriesMax,
  untilReady,
} from './server-start.ts';

export interface PostgresSite {
  readonly ledger: ProcessLedger;
  readonly binaries: PostgresBinaries;
  readonly user: OsUser | undefined;
  readonly password: string;
  /** Off for speed: a power failure then loses writes; kill -9 of a process does not. */
  readonly fsync: boolean;
}

export type StopMode = 'smart' | 'fast' | 'immediate';

const stopSignals: Readonly<Record<StopMode, NodeJS.Signals>> = {
  smart: 'SIGTERM',
  fast: 'SIGINT',
  immediate: 'SIGQUIT',
};

/** A start includes crash recovery of what a test wrote. */
const startMaxMs = 60_000;
/** A fast shutdown writes a checkpoint. */
const stopMaxMs = 60_000;
const initdbMaxMs = 60_000;
/** Backends detect a dead postmaster when they wait: a margin for a busy machine. */
const childrenGoneMaxMs = 15_000;
const reloadMaxMs = 10_000;
const pollMs = 50;

const baseSettings: Readonly<Record<string, string>> = {
  listen_addresses: '127.0.0.1',
  unix_socket_directories: '',
  wal_level: 'logical',
  max_wal_senders: '20',
  max_replication_slots: '20',
  max_connections: '200',
  max_prepared_transactions: '10',
  // A forgotten slot must not fill the user's disk.
  max_slot_wal_keep_size: '8GB',
  shared_buffers: '64MB',
  // Shared memory in the data directory is deleted with it; in /dev/shm it would stay.
  dynamic_shared_memory_type: 'mmap',
  log_line_prefix: '%m [%p] %q%u@%d %a ',
  jit: 'off',
};

export class PostgresServer {
  readonly name: string;
  readonly dataDir: string;
  readonly logFile: string;
  readonly #site: PostgresSite;
  readonly #settings = new Map(Object.entries(baseSettings));
  #port = 0;
  #process: StartedProcess | undefined;
  /** The children of a killed postmaster: all have to end before the next one starts. */
  #orphans: readonly ProcessIdentity[] = [];

  constructor(site: PostgresSite, name: string, directory: string) {
    this.#site = site;
    this.name = name;
    this.dataDir = join(directory, `postgres-${name}`);
    this.logFile = join(directory, `postgres-${name}.log`);
    if (!site.fsync) this.#settings.set('fsync', 'off');
  }

  get port(): number {
    return this.#port;
  }

  get major(): number {
    return this.#site.binaries.major;
  }

  url(database = 'postgres'): string {
    const name = encodeURIComponent(database);
    return `postgres://postgres:${this.#site.password}@127.0.0.1:${this.#port}/${name}`;
  }

  /** The pid of the postmaster, undefined while the server is down. */
  pid(): number | undefined {
    return this.#running()?.pid;
  }

  /** initdb; about a second. Afterwards the server can be started. */
  async create(): Promise<void> {
    const { user, password, ledger, binaries } = this.#site;
    mkdirSync(this.dataDir, { mode: 0o700 });
    const passwordFile = `${this.dataDir}.password`;
    writeFileSync(passwordFile, password, { mode: 0o600 });
    if (user !== undefined) {
      chownSync(this.dataDir, user.uid, user.gid);
      chownSync(passwordFile, user.uid, user.gid);
    }
    const initdb = ledger.start({
      file: join(binaries.bin, 'initdb'),
      args: [
        ...['--pgdata', this.dataDir, '--username', 'postgres', '--pwfile', passwordFile],
        ...['--auth', 'scram-sha-256', '--encoding', 'UTF8', '--no-locale'],
        ...['--no-sync', '--no-instructions'],
      ],
      cwd: this.dataDir,
      env: cleanEnvironment(),
      logFile: this.logFile,
      endSignal: 'SIGKILL',
      user,
    });
    const how = await endWithin(initdb, initdbMaxMs);
    await rm(passwordFile, { force: true });
    if (how !== 'exit code 0') {
      const log = (await logSince(this.logFile, 0)).trim();
      throw new UnderstudyError(
        'PREREQUISITE',
        `initdb of ${this.name} failed (${how ?? 'timed out'}): ${log}`,
        `The programs are those in ${binaries.bin}; UNDERSTUDY_PG_BIN selects others.`,
      );
    }
    await appendFile(join(this.dataDir, 'postgresql.conf'), "include 'sandbox.conf'\n");
    await this.#writeSettings();
  }

  /** Resolves when the server has answered a query; at once when it runs already. */
  async start(): Promise<void> {
    if (this.#running() !== undefined) return;
    await this.#clearLeftovers();
    const firstStart = this.#port === 0;
    for (let tries = 1; ; tries += 1) {
      if (this.#port === 0) [this.#port = 0] = await freePorts(1);
      const offset = await logSize(this.logFile);
      const started = this.#launch();
      this.#process = started;
      try {
        await untilReady(started, startMaxMs, () => this.#select());
        return;
      } catch (error) {
        const text = await logSince(this.logFile, offset);
        if (started.ended() === undefined || tries === startTriesMax) throw error;
        // Another port may be chosen only before this one was published.
        if (firstStart && portWasTaken(text)) this.#port = 0;
        else if (text.includes('shared memory block')) await sleep(pollMs * 10);
        else throw error;
      }
    }
  }

  /** Resolves when the postmaster has exited; `smart` waits for clients. */
  async stop(mode: StopMode = 'fast'): Promise<void> {
    const running = this.#running();
    if (running === undefined) return;
    const all = [running, ...childrenOf(running.pid)];
    signalProcess(running, stopSignals[mode]);
    if (!(await waitUntilGone(all, stopMaxMs)) || !(await endWithin(running, stopMaxMs))) {
      throw new UnderstudyError(
        'TIMED_OUT',
        `Postgres ${this.name} did not stop (${mode}) in ${stopMaxMs / 1000} s`,
        `See ${this.logFile}; stop('immediate') does not wait for clients.`,
      );
    }
  }

  /**
   * SIGKILL resolves when the postmaster is dead and its backends have ended by themselves. SIGSTOP
   * and SIGCONT are sent to the backends too, to simulate a hanging server.
   */
  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const running = this.#running();
    if (running === undefined) return;
    const children = childrenOf(running.pid);
    signalProcess(running, signal);
    if (signal === 'SIGSTOP' || signal === 'SIGCONT') {
      for (const child of children) signalProcess(child, signal);
    }
    if (signal === 'SIGKILL') {
      this.#orphans = children;
      // A stopped backend would never detect it.
      for (const child of children) signalProcess(child, 'SIGCONT');
      await endWithin(running, childrenGoneMaxMs);
      await this.#awaitOrphans();
    }
  }

  /**
   * Changes settings permanently; a running server reloads them. Settings that need a restart
   * (wal_level, max_connections, …) take effect after stop and start.
   */
  async configure(settings: Readonly<Record<string, string>>): Promise<void> {
    for (const [name, value] of Object.entries(settings)) this.#settings.set(name, value);
    await this.#writeSettings();
    const running = this.#running();
    if (running === undefined) return;
    const before = await this.#loadTime();
    signalProcess(running, 'SIGHUP');
    const deadline = Date.now() + reloadMaxMs;
    while ((await this.#loadTime()) === before) {
      if (Date.now() > deadline) {
        throw new UnderstudyError(
          'TIMED_OUT',
          `Postgres ${this.name} did not reload its settings in ${reloadMaxMs / 1000} s`,
          `See ${this.logFile}.`,
        );
      }
      await sleep(pollMs);
    }
  }

  #running(): StartedProcess | undefined {
    return this.#process?.ended() === undefined ? this.#process : undefined;
  }

  #launch(): StartedProcess {
    return this.#site.ledger.start({
      file: join(this.#site.binaries.bin, 'postgres'),
      args: ['-D', this.dataDir, '-p', String(this.#port)],
      cwd: this.dataDir,
      env: cleanEnvironment(),
      logFile: this.logFile,
      // An immediate shutdown: unlike SIGKILL it frees the shared memory.
      endSignal: 'SIGQUIT',
      user: this.#site.user,
    });
  }

  /**
   * After kill -9 the file postmaster.pid stays. Postgres detects that its process is dead, unless
   * another process has that pid by now. Then, and only then, the file is removed: Postgres also
   * finds remaining backends by it.
   */
  async #clearLeftovers(): Promise<void> {
    await this.#awaitOrphans();
    const file = join(this.dataDir, 'postmaster.pid');
    const text = await readFile(file, 'utf8').catch((error: unknown) => {
      if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return '';
      throw error;
    });
    const pid = Number(text.split('\n')[0]);
    if (text !== '' && identify(pid) !== undefined) await rm(file, { force: true });
  }

  async #awaitOrphans(): Promise<void> {
    if (await waitUntilGone(this.#orphans, childrenGoneMaxMs)) return;
    throw new UnderstudyError(
      'TIMED_OUT',
      `backends of the killed Postgres ${this.name} still run`,
      `See \`ps -o pid,stat,command -p ${this.#orphans.map((one) => one.pid).join(',')}\`.`,
    );
  }

  async #writeSettings(): Promise<void> {
    const file = join(this.dataDir, 'sandbox.conf');
    await writeFile(file, settingsText(this.#settings));
    await chmod(file, 0o600);
    const { user } = this.#site;
    if (user !== undefined) await chown(file, user.uid, user.gid);
  }

  async #select(): Promise<void> {
    await this.#query('SELECT 1 AS one');
  }

  async #loadTime(): Promise<string> {
    return this.#query('SELECT extract(epoch FROM pg_conf_load_time())::text AS one');
  }

  async #query(text: string): Promise<string> {
    const client = new pg.Client({
      connectionString: this.url(),
      connectionTimeoutMillis: 2_000,
      query_timeout: 5_000,
    });
    // A connection that is lost while idle also fails the next query.
    client.on('error', () => undefined);
    try {
      await client.connect();
      const result = await client.query<{ one: unknown }>(text);
      return String(result.rows[0]?.one);
    } finally {
      await client.end();
    }
  }
}

export function settingsText(settings: ReadonlyMap<string, string>): string {
  return [...settings]
    .map(([name, value]) => `${name} = '${value.replaceAll("'", "''")}'\n`)
    .join('');
}

/** PGPORT, PGOPTIONS and their like in the caller's shell must not reach these servers. */
function cleanEnvironment(): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(([name]) => !name.startsWith('PG'));
  return { ...Object.fromEntries(kept), LC_ALL: 'C', TZ: 'UTC' };
}
