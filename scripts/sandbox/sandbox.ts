/**
 * The real servers on one machine without Docker: Postgres, Kafka brokers, a schema registry. All
 * have answered when the start resolves. All processes are ended and the directory is removed by
 * `stop`, after a failed start, on SIGINT, SIGTERM and SIGHUP of the owner, and by the janitor when
 * the owner ends in any other way.
 */
import { randomBytes } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { javaDependencies } from './java-dependencies.ts';
import { type KafkaBroker, startKafka } from './kafka-broker.ts';
import { postgresUser, reachable } from './os-user.ts';
import { postgresBinaries } from './postgres-binaries.ts';
import { PostgresServer } from './postgres-server.ts';
import { findJava } from './prerequisites.ts';
import { ProcessLedger } from './process-ledger.ts';
import { RegistryServer } from './registry-server.ts';

export type { KafkaBroker } from './kafka-broker.ts';
export type { PostgresServer, StopMode } from './postgres-server.ts';
export type { RegistryServer } from './registry-server.ts';

export interface SandboxOptions {
  /** Must not exist, or be empty: it is removed at the end. Default: a new one below .sandbox/. */
  readonly dir?: string;
  /** Postgres servers; default 3. */
  readonly postgres?: number;
  /** `system` (default), or 15 to 18, or several with commas, assigned to the servers in turn. */
  readonly postgresVersion?: string;
  /** Kafka brokers; default 1. */
  readonly brokers?: 0 | 1 | 3;
  /** Default true. */
  readonly registry?: boolean;
  readonly fastCompaction?: boolean;
  /** Default false: without it the sandbox survives kill -9, but no power failure. */
  readonly fsync?: boolean;
  /** Keeps the directory, with all logs. */
  readonly keep?: boolean;
  readonly log: (line: string) => void;
}

const postgresMax = 16;
const startingEndsMaxMs = 5_000;
const endingSignals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
const projectRoot = fileURLToPath(new URL('../../', import.meta.url));
const sandboxRoot = join(projectRoot, '.sandbox');
export const cacheDir = join(sandboxRoot, 'cache');

export class Sandbox {
  readonly dir: string;
  postgres: readonly PostgresServer[] = [];
  kafka: readonly KafkaBroker[] = [];
  registry: RegistryServer | null = null;
  readonly ledger: ProcessLedger;
  /** Settles when no step of the start runs any more. */
  starting: Promise<unknown> = Promise.resolve();
  readonly #keep: boolean;
  #ending: Promise<void> | undefined;

  constructor(dir: string, ledger: ProcessLedger, keep: boolean) {
    this.dir = dir;
    this.ledger = ledger;
    this.#keep = keep;
    for (const signal of endingSignals) process.once(signal, this.#onSignal);
  }

  get brokers(): readonly string[] {
    return this.kafka.map((broker) => broker.address);
  }

  /** Every server with its process, and the janitor. */
  processes(): readonly { readonly name: string; readonly pid: number | undefined }[] {
    return [
      ...this.postgres.map((server) => ({ name: `postgres-${server.name}`, pid: server.pid() })),
      ...this.kafka.map((broker) => ({ name: `kafka-${broker.id}`, pid: broker.pid() })),
      ...(this.registry === null ? [] : [{ name: 'registry', pid: this.registry.pid() }]),
      { name: 'janitor', pid: this.ledger.janitorPid },
    ];
  }

  /** Makes tests use these servers. */
  env(): Record<string, string> {
    return {
      ...(this.postgres.length === 0
        ? {}
        : { UNDERSTUDY_TEST_POSTGRES: this.postgres.map((server) => server.url()).join(',') }),
      ...(this.kafka.length === 0 ? {} : { UNDERSTUDY_TEST_KAFKA: this.brokers.join(',') }),
      ...(this.registry === null ? {} : { UNDERSTUDY_TEST_REGISTRY: this.registry.url }),
    };
  }

  /** Ends everything and removes the directory. A second call waits for the first. */
  stop(): Promise<void> {
    this.#ending ??= this.#end();
    return this.#ending;
  }

  async #end(): Promise<void> {
    // No process can be started from here on. A start that is still running fails soon, and is
    // awaited, since it must not create files in a removed directory. A download is not awaited.
    await this.ledger.close();
    const limit = new AbortController();
    const limitReached = sleep(startingEndsMaxMs, undefined, { signal: limit.signal });
    await Promise.race([this.starting, limitReached.catch(() => undefined)]);
    limit.abort();
    await this.ledger.end(this.#keep);
    for (const signal of endingSignals) process.off(signal, this.#onSignal);
  }

  /**
   * Once: a second signal during the stop ends the owner at once, and the janitor does the rest.
   * Without another listener, the signal ends the owner afterwards as it would by default.
   */
  readonly #onSignal = (signal: NodeJS.Signals): void => {
    const othersListen = process.listenerCount(signal) > 0;
    this.stop().then(
      () => {
        if (!othersListen) process.kill(process.pid, signal);
      },
      (error: unknown) => {
        process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
        process.exit(1);
      },
    );
  };
}

export async function startSandbox(options: SandboxOptions): Promise<Sandbox> {
  const startedAtMs = Date.now();
  const count = options.postgres ?? 3;
  if (!Number.isInteger(count) || count < 0 || count > postgresMax) {
    throw new UnderstudyError('USAGE', `${count} Postgres servers`, `Name 0 to ${postgresMax}.`);
  }
  const dir = newDirectory(options.dir);
  const ledger = new ProcessLedger();
  ledger.addDirectory(dir);
  const sandbox = new Sandbox(dir, ledger, options.keep ?? false);
  const parts = [
    startPostgres(sandbox, count, options),
    startJavaServers(sandbox, options),
  ] as const;
  sandbox.starting = Promise.allSettled(parts);
  try {
    [sandbox.postgres, { kafka: sandbox.kafka, registry: sandbox.registry }] =
      await Promise.all(parts);
  } catch (error) {
    await sandbox.stop();
    throw error;
  }
  options.log(`sandbox ready in ${((Date.now() - startedAtMs) / 1000).toFixed(1)} s: ${dir}`);
  return sandbox;
}

function newDirectory(named: string | undefined): string {
  const dir = resolve(named ?? join(sandboxRoot, `run-${randomBytes(4).toString('hex')}`));
  if (existsSync(dir) && readdirSync(dir).length > 0) {
    throw new UnderstudyError(
      'USAGE',
      `${dir} is not empty, and a sandbox removes its directory at the end`,
      'Name a directory that does not exist yet.',
    );
  }
  mkdirSync(dir, { recursive: true });
  // The operating system user of Postgres has to enter the directory, not to list it.
  chmodSync(dir, 0o711);
  return dir;
}

async function startPostgres(
  sandbox: Sandbox,
  count: number,
  options: SandboxOptions,
): Promise<readonly PostgresServer[]> {
  if (count === 0) return [];
  const { ledger } = sandbox;
  const user = await postgresUser();
  const directory = await reachable(
    sandbox.dir,
    tmpdir(),
    `understudy-${basename(sandbox.dir)}`,
    user,
  );
  if (directory !== sandbox.dir) ledger.addDirectory(directory);
  const binariesDir = await reachable(cacheDir, '/var/cache', 'understudy-sandbox', user);
  const wanted = (options.postgresVersion ?? 'system').split(',').map((one) => one.trim());
  const binaries = new Map(
    await Promise.all(
      [...new Set(wanted)].map(
        async (version) =>
          [version, await postgresBinaries(version, binariesDir, user, options.log)] as const,
      ),
    ),
  );
  const password = randomBytes(16).toString('hex');
  const servers = Array.from({ length: count }, (_, index) => {
    const chosen = binaries.get(wanted[index % wanted.length] ?? '');
    if (chosen === undefined) throw new Error('a wanted version was not resolved');
    const site = { ledger, binaries: chosen, user, password, fsync: options.fsync ?? false };
    return new PostgresServer(site, String.fromCharCode('a'.charCodeAt(0) + index), directory);
  });
  await Promise.all(
    servers.map(async (server) => {
      await server.create();
      await server.start();
      options.log(`Postgres ${server.major} ${server.name} on 127.0.0.1:${server.port}`);
    }),
  );
  return servers;
}

async function startJavaServers(
  sandbox: Sandbox,
  options: SandboxOptions,
): Promise<{ readonly kafka: readonly KafkaBroker[]; readonly registry: RegistryServer | null }> {
  const brokers = options.brokers ?? 1;
  const wantsRegistry = options.registry ?? true;
  if (brokers === 0 && !wantsRegistry) return { kafka: [], registry: null };
  const { ledger, dir } = sandbox;
  const java = await findJava(options.log);
  const { kafkaJars, registryJar } = await javaDependencies(cacheDir, options.log);
  const startBrokers = async (): Promise<readonly KafkaBroker[]> => {
    if (brokers === 0) return [];
    const fastCompaction = options.fastCompaction ?? false;
    const site = { ledger, java, jars: kafkaJars, directory: dir, fastCompaction };
    const kafka = await startKafka(site, brokers);
    options.log(`Kafka on ${kafka.map((broker) => broker.address).join(', ')}`);
    return kafka;
  };
  const startRegistry = async (): Promise<RegistryServer | null> => {
    if (!wantsRegistry) return null;
    const registry = new RegistryServer({ ledger, java, jar: registryJar, directory: dir });
    await registry.start();
    options.log(`schema registry on ${registry.url}`);
    return registry;
  };
  const [kafka, registry] = await Promise.all([startBrokers(), startRegistry()]);
  return { kafka, registry };
}
