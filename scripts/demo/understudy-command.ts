/**
 * Runs the built command line as processes: a command, whose answer is returned, or an agent, which
 * serves a node until it is stopped. The lines of a command are shown as they arrive; agents write
 * to log files of the sandbox.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { signalProcess } from '../sandbox/process-identity.ts';
import type { StartedProcess } from '../sandbox/process-ledger.ts';
import type { Sandbox } from '../sandbox/sandbox.ts';
import { endWithin } from '../sandbox/server-start.ts';
import { type Screen, seconds } from './screen.ts';

const projectRoot = fileURLToPath(new URL('../../', import.meta.url));
const commandFile = join(projectRoot, 'dist', 'cli.js');

/** Longer than any time limit inside a command, so that the command reports its own. */
const commandMaxMs = 120_000;
/** An agent finishes its batch and closes its connections to three servers. */
const agentStopMaxMs = 15_000;
const shownLogLines = 15;

export interface Answered {
  /** The whole of stdout. */
  readonly text: string;
  readonly exit: number;
  readonly tookMs: number;
}

export interface Agent {
  readonly node: string;
  readonly process: StartedProcess;
  /** Set before the agent is stopped: until then its end is a failure. */
  mayEnd: boolean;
}

export class Understudy {
  readonly #sandbox: Sandbox;
  readonly #config: string;
  readonly #screen: Screen;
  readonly #signal: AbortSignal;
  readonly agents: Agent[] = [];

  constructor(sandbox: Sandbox, config: string, screen: Screen, signal: AbortSignal) {
    if (!existsSync(commandFile)) {
      throw new UnderstudyError('PREREQUISITE', `${commandFile} is missing`, 'npm run build');
    }
    this.#sandbox = sandbox;
    this.#config = config;
    this.#screen = screen;
    this.#signal = signal;
  }

  /** Runs a command to its end. An exit code that is not in `exits` is a failure. */
  async command(words: readonly string[], exits: readonly number[] = [0]): Promise<Answered> {
    const shown = `understudy ${words.map(quoted).join(' ')}`;
    this.#screen.command(shown);
    const startedAtMs = this.#screen.elapsedMs();
    const { text, exit } = await this.#spawn(words);
    const tookMs = this.#screen.elapsedMs() - startedAtMs;
    if (!exits.includes(exit)) {
      throw new Error(`\`${shown}\` ended with exit code ${exit}, not ${exits.join(' or ')}`);
    }
    return { text, exit, tookMs };
  }

  /** The same with --json: stdout is one object, and only stderr is shown. */
  async json<Answer>(
    words: readonly string[],
    exits: readonly number[] = [0],
  ): Promise<Answered & { readonly answer: Answer }> {
    const answered = await this.command(['--json', ...words], exits);
    return { ...answered, answer: JSON.parse(answered.text) as Answer };
  }

  #spawn(words: readonly string[]): Promise<{ readonly text: string; readonly exit: number }> {
    const child = spawn(process.execPath, [commandFile, ...words], {
      cwd: this.#sandbox.dir,
      env: this.#environment(),
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: commandMaxMs,
      signal: this.#signal,
      // The sandbox is deleted, and with it everything that a killed command leaves unfinished.
      killSignal: 'SIGKILL',
    });
    const json = words.includes('--json');
    const show = (line: string): void => this.#screen.line(`    ${line}`);
    createInterface({ input: child.stderr }).on('line', show);
    let text = '';
    const answer = createInterface({ input: child.stdout }).on('line', (line) => {
      text += `${line}\n`;
      if (!json || line.startsWith('{"error":')) show(line);
    });
    // The last line may arrive after the exit of the process.
    const read = new Promise((resolve) => answer.once('close', resolve));
    return new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code, signal) => {
        if (code === null) reject(new Error(`understudy ${words[0]} was killed by ${signal}`));
        else void read.then(() => resolve({ text, exit: code }));
      });
    });
  }

  /** The agent is in the ledger of the sandbox, so that its janitor ends it too. */
  runAgent(node: string): Agent {
    this.#screen.command(`understudy run ${node} &`);
    const started = this.#sandbox.ledger.start({
      file: process.execPath,
      args: [commandFile, 'run', node],
      cwd: this.#sandbox.dir,
      env: this.#environment(),
      logFile: join(this.#sandbox.dir, `agent-${node}.log`),
      endSignal: 'SIGTERM',
      user: undefined,
    });
    const agent = { node, process: started, mayEnd: false };
    this.agents.push(agent);
    return agent;
  }

  /** Rejects when an agent ends that was not stopped. */
  async agentsEnded(agent: Agent): Promise<never> {
    const how = await agent.process.exit;
    if (agent.mayEnd) return new Promise(() => undefined);
    throw new Error(`the agent of node ${agent.node} ended by itself: ${how}`);
  }

  async stopAgent(agent: Agent): Promise<void> {
    agent.mayEnd = true;
    const fromMs = this.#screen.elapsedMs();
    signalProcess(agent.process, 'SIGTERM');
    const how = await endWithin(agent.process, agentStopMaxMs);
    if (how === 'exit code 0') {
      const took = seconds(this.#screen.elapsedMs() - fromMs);
      this.#screen.line(`    the agent of node ${agent.node} stopped on SIGTERM in ${took}`);
      return;
    }
    const what = how ?? `still runs after ${agentStopMaxMs / 1000} s`;
    throw new Error(`the agent of node ${agent.node} did not stop on SIGTERM: ${what}`);
  }

  /** The last lines of their logs, to find the reason of a failure. */
  async showLogs(screen: Screen): Promise<void> {
    for (const { node, process: started } of this.agents) {
      const text = await readFile(started.logFile, 'utf8').catch((error: unknown) => String(error));
      screen.line(`the end of the log of agent ${node} (${started.ended() ?? 'it runs'}):`);
      for (const line of text.trimEnd().split('\n').slice(-shownLogLines)) {
        screen.line(`    ${line}`);
      }
    }
  }

  #environment(): NodeJS.ProcessEnv {
    return { ...process.env, UNDERSTUDY_CONFIG: this.#config };
  }
}

function quoted(word: string): string {
  return /^[\w.,:/=@-]+$/.test(word) ? word : `"${word}"`;
}
