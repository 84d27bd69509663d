/**
 * One agent of a fleet under test: a process of the built command. Flows in: the process; flows
 * out: its log as it grows, its exit code, and ways to stop, freeze and kill it by its pid.
 */
import type { ChildProcess } from 'node:child_process';

/** Starting, taking the lead, or recovering takes seconds; a busy machine takes longer. */
const saysMaxMs = 90_000;
const exitMaxMs = 90_000;
const pollMs = 25;

export class FleetAgent {
  readonly node: string;
  /** Its exit code, or null when a signal ended it. */
  readonly exit: Promise<number | null>;
  log = '';
  readonly #child: ChildProcess;
  #ended = false;

  constructor(node: string, child: ChildProcess) {
    this.node = node;
    this.#child = child;
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.log += text;
      });
    }
    this.exit = new Promise((resolve) => {
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

  /** Waits until the log, from `after` characters on, has what was expected. */
  async says(what: RegExp, after = 0): Promise<void> {
    const deadlineMs = Date.now() + saysMaxMs;
    while (!what.test(this.log.slice(after))) {
      if (this.#ended) throw new Error(`agent ${this.node} ended before ${what}:\n${this.log}`);
      if (Date.now() > deadlineMs) throw new Error(`${this.node} never ${what}:\n${this.log}`);
      await new Promise((resolve) => setTimeout(resolve, pollMs));
    }
  }

  /** The exit code once it ends by itself. */
  async exitCode(maxMs = exitMaxMs): Promise<number | null> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      const error = (): Error => new Error(`agent ${this.node} did not end:\n${this.log}`);
      timer = setTimeout(() => reject(error()), maxMs);
    });
    return Promise.race([this.exit, late]).finally(() => clearTimeout(timer));
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.exit;
  }

  /** As a service manager stops it; gives the exit code. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    this.#child.kill(signal);
    return this.exitCode();
  }
}
