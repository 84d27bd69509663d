/**
 * The schema registry of the sandbox: Apicurio, by its Confluent API, on 127.0.0.1. It is ready
 * when it has answered. Its data is in a file of the sandbox and is written immediately: a registry
 * that lost its ids in a kill would make every topic of the sandbox unreadable, unlike a real one.
 */
import { get } from 'node:http';
import { join } from 'node:path';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { freePorts } from './ports.ts';
import { signalProcess } from './process-identity.ts';
import type { ProcessLedger, StartedProcess } from './process-ledger.ts';
import {
  endWithin,
  logSince,
  logSize,
  portWasTaken,
  startTriesMax,
  untilReady,
} from './server-start.ts';

export interface RegistrySite {
  readonly ledger: ProcessLedger;
  readonly java: string;
  readonly jar: string;
  readonly directory: string;
}

const startMaxMs = 90_000;
const stopMaxMs = 10_000;
const requestMaxMs = 2_000;
const apiPath = '/apis/ccompat/v7';

export class RegistryServer {
  readonly logFile: string;
  readonly #site: RegistrySite;
  #port = 0;
  #process: StartedProcess | undefined;

  constructor(site: RegistrySite) {
    this.#site = site;
    this.logFile = join(site.directory, 'registry.log');
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}${apiPath}`;
  }

  pid(): number | undefined {
    return this.#running()?.pid;
  }

  /** Resolves when the list of subjects can be read. */
  async start(): Promise<void> {
    if (this.#running() !== undefined) return;
    const firstStart = this.#port === 0;
    for (let tries = 1; ; tries += 1) {
      if (this.#port === 0) [this.#port = 0] = await freePorts(1);
      const offset = await logSize(this.logFile);
      const started = this.#launch();
      this.#process = started;
      try {
        await untilReady(started, startMaxMs, () => answers(`${this.url}/subjects`));
        return;
      } catch (error) {
        const taken = portWasTaken(await logSince(this.logFile, offset));
        // Another port may be chosen only before this one was published.
        if (!firstStart || !taken || tries === startTriesMax) throw error;
        await this.kill('SIGKILL');
        this.#port = 0;
      }
    }
  }

  async stop(): Promise<void> {
    const running = this.#running();
    if (running === undefined) return;
    signalProcess(running, 'SIGTERM');
    if ((await endWithin(running, stopMaxMs)) === undefined) await this.kill('SIGKILL');
  }

  /** SIGKILL resolves when the process has ended. */
  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const running = this.#running();
    if (running === undefined) return;
    signalProcess(running, signal);
    if (signal !== 'SIGKILL') return;
    if ((await endWithin(running, stopMaxMs)) !== undefined) return;
    throw new UnderstudyError(
      'TIMED_OUT',
      `the schema registry survived SIGKILL for ${stopMaxMs / 1000} s`,
      `See \`ps -o pid,stat,command -p ${running.pid}\`.`,
    );
  }

  #running(): StartedProcess | undefined {
    return this.#process?.ended() === undefined ? this.#process : undefined;
  }

  #launch(): StartedProcess {
    const database = join(this.#site.directory, 'registry', 'h2');
    return this.#site.ledger.start({
      file: this.#site.java,
      args: [
        ...['-Xmx320m', '-XX:TieredStopAtLevel=1', '-Xshare:auto', '-XX:+UseSerialGC'],
        '-Dquarkus.http.host=127.0.0.1',
        `-Dquarkus.http.port=${this.#port}`,
        '-Dapicurio.storage.kind=sql',
        '-Dapicurio.storage.sql.kind=h2',
        `-Dapicurio.datasource.url=jdbc:h2:file:${database};WRITE_DELAY=0`,
        // 20 connections by default, opened at the start.
        '-Dapicurio.datasource.jdbc.initial-size=1',
        '-Dapicurio.datasource.jdbc.min-size=1',
        ...['-jar', this.#site.jar],
      ],
      cwd: this.#site.directory,
      env: process.env,
      logFile: this.logFile,
      endSignal: 'SIGKILL',
      user: undefined,
    });
  }
}

function answers(url: string): Promise<void> {
  return new Promise((resolve, reject) => {
    // Without keep-alive: an idle connection would keep the caller's process alive.
    const request = get(url, { agent: false, timeout: requestMaxMs }, (response) => {
      response.resume();
      response.once('end', () => {
        if (response.statusCode === 200) resolve();
        else reject(new Error(`status ${response.statusCode}`));
      });
    });
    request.once('timeout', () => request.destroy(new Error('no answer')));
    request.once('error', reject);
  });
}
