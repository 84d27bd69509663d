/**
 * Starts one or three Kafka brokers without Docker, each broker and controller in one process
 * (KRaft). The cluster is ready for topics and transactions when the start resolves. A broker can
 * be stopped, killed and restarted with the same ports and data.
 */
import { randomBytes } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { type Admin, Kafka } from 'kafkajs';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { brokerProperties, type QuorumMember } from './kafka-properties.ts';
import { freePorts } from './ports.ts';
import { signalProcess } from './process-identity.ts';
import type { ProcessLedger, StartedProcess } from './process-ledger.ts';
import { endWithin, logSince, portWasTaken, startTriesMax, untilReady } from './server-start.ts';

export interface KafkaSite {
  readonly ledger: ProcessLedger;
  readonly java: string;
  readonly jars: string;
  readonly directory: string;
  readonly fastCompaction: boolean;
}

const log4jFile = fileURLToPath(new URL('./log4j2.xml', import.meta.url));
/** Three JVMs on two busy cores take a quarter of it. */
const startMaxMs = 90_000;
const formatMaxMs = 60_000;
/** A controlled shutdown moves leaders first; a lone broker has nowhere to move them. */
const stopMaxMs = 15_000;
const killMaxMs = 10_000;
const pollMs = 100;
/** A starting broker accepts connections long before it answers on them: retry soon. */
const probe = { requestMaxMs: 1_000, retries: 0 } as const;
const work = { requestMaxMs: 5_000, retries: 8 } as const;
/** Enough for these brokers; the fast-start flags cost throughput that no test here needs. */
const jvmFlags = ['-Xmx384m', '-XX:TieredStopAtLevel=1', '-Xshare:auto', '-XX:+UseSerialGC'];

export class KafkaBroker {
  readonly id: number;
  readonly port: number;
  readonly directory: string;
  readonly logFile: string;
  readonly #site: KafkaSite;
  #process: StartedProcess | undefined;

  constructor(site: KafkaSite, member: QuorumMember) {
    this.#site = site;
    this.id = member.id;
    this.port = member.port;
    this.directory = join(site.directory, `kafka-${member.id}`);
    this.logFile = `${this.directory}.log`;
  }

  get address(): string {
    return `127.0.0.1:${this.port}`;
  }

  pid(): number | undefined {
    return this.#running()?.pid;
  }

  /** Writes the configuration and formats the storage. */
  async create(members: readonly QuorumMember[], clusterId: string): Promise<void> {
    mkdirSync(this.directory, { recursive: true });
    const properties = brokerProperties({
      id: this.id,
      members,
      dataDir: join(this.directory, 'data'),
      fastCompaction: this.#site.fastCompaction,
    });
    await writeFile(this.#propertiesFile(), properties);
    // One word: an id may begin with a dash.
    const named = [`--cluster-id=${clusterId}`, '--config', this.#propertiesFile()];
    const args = ['format', ...named];
    const format = this.#java('kafka.tools.StorageTool', args, 'SIGKILL');
    const how = await endWithin(format, formatMaxMs);
    if (how !== 'exit code 0') {
      const log = (await logSince(format.logFile, -2_000)).trim();
      throw new UnderstudyError(
        'PREREQUISITE',
        `formatting Kafka broker ${this.id} failed (${how ?? 'no end'}): ${log}`,
        `See ${this.directory}.`,
      );
    }
  }

  /** Resolves when this broker is a live member of its cluster. */
  async start(): Promise<void> {
    if (this.#running() !== undefined) return;
    const started = this.#java('kafka.Kafka', [this.#propertiesFile()], 'SIGKILL');
    this.#process = started;
    await untilReady(started, startMaxMs, () => this.#answers());
  }

  /** An orderly shutdown (SIGTERM), and SIGKILL when that takes too long. */
  async stop(): Promise<void> {
    const running = this.#running();
    if (running === undefined) return;
    signalProcess(running, 'SIGTERM');
    if ((await endWithin(running, stopMaxMs)) === undefined) await this.kill('SIGKILL');
  }

  /** SIGKILL resolves when the process has ended. SIGSTOP and SIGCONT simulate a hanging broker. */
  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const running = this.#running();
    if (running === undefined) return;
    signalProcess(running, signal);
    if (signal !== 'SIGKILL') return;
    if ((await endWithin(running, killMaxMs)) === undefined) {
      throw new UnderstudyError(
        'TIMED_OUT',
        `Kafka broker ${this.id} survived SIGKILL for ${killMaxMs / 1000} s`,
        `See \`ps -o pid,stat,command -p ${running.pid}\`.`,
      );
    }
  }

  /** Whether one of its ports was not free, by its log. */
  async lostPort(): Promise<boolean> {
    return portWasTaken(`${await logSince(this.logFile, 0)}${await logSince(this.#output(), 0)}`);
  }

  #running(): StartedProcess | undefined {
    return this.#process?.ended() === undefined ? this.#process : undefined;
  }

  #propertiesFile(): string {
    return join(this.directory, 'server.properties');
  }

  #output(): string {
    return `${this.directory}.out`;
  }

  #java(main: string, args: readonly string[], endSignal: NodeJS.Signals): StartedProcess {
    return this.#site.ledger.start({
      file: this.#site.java,
      args: [
        ...jvmFlags,
        `-Dlog4j2.configurationFile=${log4jFile}`,
        `-Dsandbox.log=${this.logFile}`,
        ...['-cp', `${this.#site.jars}/*`, main, ...args],
      ],
      cwd: this.directory,
      env: process.env,
      logFile: this.#output(),
      endSignal,
      user: undefined,
    });
  }

  async #answers(): Promise<void> {
    await withAdmin(client([this.address], probe), async (admin) => {
      const { brokers } = await admin.describeCluster();
      if (!brokers.some((one) => one.nodeId === this.id)) throw new Error('not a member yet');
    });
  }
}

/** All brokers of a new cluster, ready for topics and transactions. */
export async function startKafka(site: KafkaSite, count: 1 | 3): Promise<readonly KafkaBroker[]> {
  for (let tries = 1; ; tries += 1) {
    const folder = join(site.directory, tries === 1 ? 'kafka' : `kafka-try-${tries}`);
    const ports = await freePorts(2 * count);
    const members = Array.from({ length: count }, (_, index) => ({
      id: index + 1,
      port: ports[2 * index] ?? 0,
      controllerPort: ports[2 * index + 1] ?? 0,
    }));
    const brokers = members.map(
      (member) => new KafkaBroker({ ...site, directory: folder }, member),
    );
    // 16 random bytes in the form of Kafka's own UUIDs.
    const clusterId = randomBytes(16).toString('base64url');
    try {
      await Promise.all(brokers.map((broker) => broker.create(members, clusterId)));
      await Promise.all(brokers.map((broker) => broker.start()));
      await untilUsable(brokers);
      return brokers;
    } catch (error) {
      const lost = await Promise.all(brokers.map((broker) => broker.lostPort()));
      if (!lost.includes(true) || tries === startTriesMax) throw error;
      await Promise.all(brokers.map((broker) => broker.kill('SIGKILL')));
    }
  }
}

/**
 * A cluster of members is not enough: a topic has to find its replicas, and the internal topics of
 * transactions and consumer groups have to exist, otherwise the first test waits for their
 * creation.
 */
async function untilUsable(brokers: readonly KafkaBroker[]): Promise<void> {
  const addresses = brokers.map((broker) => broker.address);
  const topic = 'sandbox-ready';
  const kafka = client(addresses, work);
  await withAdmin(kafka, async (admin) => {
    await retried(async () => {
      const found = (await admin.describeCluster()).brokers.length;
      if (found < brokers.length)
        throw new Error(`${found} of ${brokers.length} brokers have joined`);
    });
    const replicationFactor = Math.min(3, brokers.length);
    await admin.createTopics({
      topics: [{ topic, numPartitions: 1, replicationFactor }],
      waitForLeaders: false,
    });
    // A broker may not know yet what its controller has created, and the client does not retry.
    await retried(() => admin.fetchTopicMetadata({ topics: [topic] }));
    const producer = kafka.producer({ transactionalId: topic });
    await producer.connect();
    const transaction = await producer.transaction();
    await transaction.abort();
    await producer.disconnect();
    // A new coordinator refuses while it loads, and the client does not retry this call.
    await retried(() => admin.fetchOffsets({ groupId: topic, topics: [topic] }));
    await admin.deleteTopics({ topics: [topic] });
  });
}

async function retried(ask: () => Promise<unknown>): Promise<void> {
  const deadline = Date.now() + startMaxMs;
  for (;;) {
    try {
      await ask();
      return;
    } catch (error) {
      if (Date.now() > deadline) {
        throw new UnderstudyError(
          'TIMED_OUT',
          `Kafka was not usable ${startMaxMs / 1000} s after its brokers had started`,
          'Start again with --keep and see the logs in the kafka folder of the sandbox.',
          error,
        );
      }
    }
    await sleep(pollMs);
  }
}

function client(addresses: readonly string[], limits: typeof probe | typeof work): Kafka {
  return new Kafka({
    clientId: 'understudy-sandbox',
    brokers: [...addresses],
    connectionTimeout: limits.requestMaxMs,
    requestTimeout: limits.requestMaxMs,
    retry: { initialRetryTime: 50, retries: limits.retries },
    // Failures are retried here; their log lines would only alarm.
    logCreator: () => () => undefined,
  });
}

async function withAdmin(kafka: Kafka, use: (admin: Admin) => Promise<void>): Promise<void> {
  const admin = kafka.admin();
  await admin.connect();
  try {
    await use(admin);
  } finally {
    await admin.disconnect();
  }
}
