/**
 * All processes and directories of one sandbox. It starts processes and reports each to the janitor
 * before anything else; after `end` none of them runs and no new one can be started. Servers run in
 * their own process groups, so that Ctrl-C in a terminal reaches the owner only, which decides the
 * order of their ends.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import type { Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { endProcesses, type OwnedProcess, removeDirectories } from './clean-up.ts';
import type { JanitorOrder } from './janitor.ts';
import { identify } from './process-identity.ts';

export interface OsUser {
  readonly uid: number;
  readonly gid: number;
}

export interface Command {
  readonly file: string;
  readonly args: readonly string[];
  readonly cwd: string;
  readonly env: NodeJS.ProcessEnv;
  /** Standard output and error are appended here. */
  readonly logFile: string;
  readonly endSignal: NodeJS.Signals;
  /** The operating system user to run as; undefined for that of the caller. */
  readonly user: OsUser | undefined;
}

/** One started process. `exit` resolves with the exit code, signal or error, as text. */
export interface StartedProcess extends OwnedProcess {
  readonly logFile: string;
  readonly exit: Promise<string>;
  /** undefined while it runs. */
  ended(): string | undefined;
}

export class ProcessLedger {
  readonly #janitor: ChildProcess;
  readonly #pipe: Writable;
  readonly #processes: OwnedProcess[] = [];
  readonly #directories: string[] = [];
  #closed = false;

  constructor() {
    const script = fileURLToPath(new URL('./janitor.ts', import.meta.url));
    this.#janitor = spawn(process.execPath, ['--import', import.meta.resolve('tsx'), script], {
      detached: true,
      cwd: '/',
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    if (this.#janitor.stdin === null) throw new Error('the janitor has no standard input');
    this.#pipe = this.#janitor.stdin;
    // Without its janitor the sandbox works: `end` does the same work itself.
    this.#pipe.on('error', () => undefined);
    this.#janitor.on('error', () => undefined);
    this.#janitor.unref();
    unrefStream(this.#pipe);
  }

  /** The pid of the janitor, for tests of its end. */
  get janitorPid(): number | undefined {
    return this.#janitor.pid;
  }

  /** The directory is removed at the end, with its contents. */
  addDirectory(directory: string): void {
    this.#directories.push(directory);
    this.#report({ kind: 'directory', directory });
  }

  start(command: Command): StartedProcess {
    if (this.#closed) {
      throw new UnderstudyError('TIMED_OUT', 'the sandbox is being stopped', 'Start a new one.');
    }
    const logFd = openSync(command.logFile, 'a');
    const child = spawn(command.file, command.args, {
      cwd: command.cwd,
      env: command.env,
      detached: true,
      stdio: ['ignore', logFd, logFd],
      ...command.user,
    });
    closeSync(logFd);
    let ended: string | undefined;
    const exit = new Promise<string>((resolve) => {
      child.once('exit', (code, signal) => resolve(signal ?? `exit code ${code}`));
      child.once('error', (error) => resolve(error.message));
    }).then((how) => {
      ended = how;
      return how;
    });
    child.unref();
    // Without a pid the command could not be started, which `exit` reports.
    const identity = (child.pid === undefined ? undefined : identify(child.pid)) ?? {
      pid: child.pid ?? 0,
      startedAt: 'never',
    };
    const owned: OwnedProcess = { ...identity, endSignal: command.endSignal };
    this.#processes.push(owned);
    this.#report({ kind: 'process', process: owned });
    return { ...owned, logFile: command.logFile, exit, ended: () => ended };
  }

  /** Ends all processes; no new one can be started. Directories stay until `end`. */
  async close(): Promise<void> {
    this.#closed = true;
    if (!(await endProcesses(this.#processes))) {
      throw new UnderstudyError(
        'TIMED_OUT',
        'a process of the sandbox did not end within 15 s of its end signal and SIGKILL',
        `See \`ps -o pid,stat,command -p ${this.#processes.map((one) => one.pid).join(',')}\`.`,
      );
    }
  }

  async end(keepDirectories: boolean): Promise<void> {
    await this.close();
    if (keepDirectories) {
      // The janitor must not remove them either. It has nothing else to do: no process runs.
      this.#janitor.kill('SIGKILL');
    } else {
      await removeDirectories(this.#directories);
    }
    this.#pipe.end();
  }

  #report(order: JanitorOrder): void {
    this.#pipe.write(`${JSON.stringify(order)}\n`);
  }
}

/** The pipe must not keep the owner's event loop alive: the janitor waits for its end. */
function unrefStream(stream: Writable): void {
  if ('unref' in stream && typeof stream.unref === 'function') stream.unref();
}
