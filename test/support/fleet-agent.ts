/**
 * One agent of a fleet under test, or another command that runs until it is stopped: a process of
 * the built command, with its log as it grows, its exit code, and ways to stop, freeze and kill it
 * by its pid.
 */
import type { ChildProcess } from 'node:child_process';
import { until, untilMs } from './until.ts';

const pollMs = 25;

export class FleetAgent {
  readonly node: string;
  log = '';
  readonly #child: ChildProcess;
  readonly #exit: Promise<number | null>;
  #ended = false;

  constructor(node: string, child: ChildProcess) {
    this.node = node;
    this.#child = child;
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.log += text;
      });
    }
    this.#exit = new Promise((resolve) => {
      child.once('close', (code) => {
        this.#ended = true;
        resolve(code);
      });
    });
  }

  get ended(): boolean {
    return this.#ended;
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** Waits until its log, from `after` characters on, has what was expected. */
  async logged(what: RegExp, after = 0): Promise<void> {
    await until(`${what} in the log of ${this.node}`, () => what.test(this.log.slice(after)), {
      pollMs,
      evidence: () => this.log,
      hopeless: () => (this.#ended ? 'its process has ended' : null),
    });
  }

  /** The exit code once it ends by itself; null when a signal ended it. */
  async exitCode(maxMs = untilMs): Promise<number | null> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      const error = (): Error => new Error(`agent ${this.node} did not end:\n${this.log}`);
      timer = setTimeout(() => reject(error()), maxMs);
    });
    return Promise.race([this.#exit, late]).finally(() => clearTimeout(timer));
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#exit;
  }

  /** As a service manager stops it; gives the exit code. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    this.#child.kill(signal);
    return this.exitCode();
  }
}
