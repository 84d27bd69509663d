/**
 * Reads the status of a fleet, as often as wanted, without asking any agent. All parts are read
 * concurrently and under a short timeout; one that cannot be reached becomes a reason in the
 * status, never a failure of the whole. Connections are kept between reads and re-created after any
 * failure.
 */
import type { Client } from 'pg';
import { connectPostgres } from '../../catalog/postgres-session.ts';
import { readPartitions, readSchemaChanges } from '../../catalog/schema-changes.ts';
import {
  readNode,
  readSchemaFormat,
  understudySchemaFormat,
} from '../../catalog/understudy-schema.ts';
import { parseLsn } from '../../change/lsn.ts';
import type { ControlLog } from '../../control/control-log.ts';
import type { ControlState } from '../../control/control-state.ts';
import { notInitialised } from '../../errors/cluster.ts';
import { schemaOlder } from '../../errors/node-state.ts';
import { statusPartTimeout } from '../../errors/timed-out.ts';
import { readClosedTables } from '../../follower/guard/guarded-tables.ts';
import { notValidForeignKeys, openBuild } from '../../follower/schema/schema-build.ts';
import { readBootstrap } from '../../follower/state/bootstrap-state.ts';
import { readDoubts } from '../../follower/state/doubts.ts';
import { readPosition } from '../../follower/state/follower-state.ts';
import { readPendingRebuild } from '../../follower/state/rebuild-state.ts';
import { readIdleSlots, readSlotWal } from '../../leader/stream/slot.ts';
import { Releasers } from '../../lifecycle.ts';
import { probeKafka } from '../../topic/kafka/client.ts';
import { createCommittedReader } from '../../topic/kafka/committed-reader.ts';
import type { CommittedReader } from '../../topic/log.ts';
import { readLogEnd } from '../../topic/log-end.ts';
import { RecordDecoder } from '../../topic/records/decoder.ts';
import { slotPattern } from '../../topic/records/layout.ts';
import { withTimeout } from '../../waiting.ts';
import type { Cluster } from '../cluster.ts';
import { readAgentError } from '../node/agent-error.ts';
import { isNodeLocked } from '../node/node-lock.ts';
import { readReachedDatabase } from '../node/reached-database.ts';
import { noRegistry } from '../node/stream-facts.ts';
import type { DatabaseFacts, FleetFacts, Found, TopicFacts } from './fleet-facts.ts';
import { isUninitialised, judgeStatus } from './judge-status.ts';
import type { FleetStatus } from './node-status.ts';
import { readTopicProblems } from './topic-problems.ts';

/** A status is wanted at once; a server that needs longer counts as unreachable. */
const databaseTimeoutMs = 3_000;
/** For the control log and the topic together, so that monitoring gets both in time. */
const kafkaTimeoutMs = 4_000;
const probeTimeoutMs = 2_500;
/** A server that answers closes a connection within a moment. */
const statusCloseTimeoutMs = 1_000;

export class FleetWatch {
  readonly #cluster: Cluster;
  readonly #sessions = new Map<string, Promise<Client>>();
  readonly #ending = new Set<Promise<unknown>>();
  /** Handed in and closed by the caller. */
  readonly #givenControl: ControlLog | null;
  #control: Promise<ControlLog> | null = null;
  #controlReleasers = new Releasers(statusCloseTimeoutMs);
  #reader: { readonly reader: CommittedReader; readonly decoder: RecordDecoder } | null = null;

  constructor(cluster: Cluster, control: ControlLog | null = null) {
    this.#cluster = cluster;
    this.#givenControl = control;
  }

  /** Rejects only with NOT_INITIALISED, when every database answers that there is no cluster. */
  async status(): Promise<FleetStatus> {
    const { settings, around, topic, name } = this.#cluster;
    const [kafka, nodes] = await Promise.all([
      this.#readKafka(),
      Promise.all(settings.nodeNames.map((node) => this.#readNode(node))),
    ]);
    const nowMs = around.nowMs();
    const facts: FleetFacts = { cluster: name, topicName: topic, ...kafka, nodes, nowMs };
    if (!isUninitialised(facts)) return judgeStatus(facts);
    throw notInitialised(name);
  }

  async close(): Promise<void> {
    for (const node of [...this.#sessions.keys()]) this.#dropSession(node);
    this.#dropControl();
    await this.#dropReader();
    await within(Promise.allSettled([...this.#ending]), statusCloseTimeoutMs, 'closing').catch(
      () => {
        this.#cluster.around.log.debug({}, 'left a connection of the status open');
      },
    );
  }

  async #readNode(node: string): Promise<FleetFacts['nodes'][number]> {
    const database = await found(
      () => this.#readDatabase(node),
      databaseTimeoutMs,
      `the database of node ${node}`,
    );
    if (database.kind === 'missing') this.#dropSession(node);
    return { name: node, database, delayMs: this.#cluster.settings.delayMs(node) };
  }

  async #readDatabase(node: string): Promise<DatabaseFacts> {
    const client = await this.#session(node);
    const identity = await readNode(client);
    const format = identity === null ? null : await readSchemaFormat(client);
    if (format !== null && format < understudySchemaFormat) {
      throw schemaOlder(identity?.name ?? '', format, understudySchemaFormat);
    }
    const position = identity === null ? null : await readPosition(client);
    const open = identity === null ? null : await openBuild(client);
    const notValid = identity === null ? [] : await notValidForeignKeys(client);
    const building = identity === null ? null : await readBootstrap(client);
    const rebuild = identity === null ? null : await readPendingRebuild(client);
    const doubts = identity === null ? [] : await readDoubts(client);
    const agentError = identity === null ? null : await readAgentError(client);
    const { rows } = await client.query<{ wal: string | null; agent: string; system: string }>(
      `SELECT CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_lsn() END AS wal,
              (SELECT system_identifier FROM pg_control_system()) AS system,
              ${isNodeLocked} AS agent`,
    );
    const row = rows[0];
    const reached = await readReachedDatabase(client, row?.system ?? '', identity !== null);
    const idle = await readIdleSlots(client, slotPattern(this.#cluster.name));
    return {
      identity,
      schemaFormat: format,
      position,
      openBuild: open,
      notValid,
      building,
      rebuild,
      doubts,
      closedTables: identity?.role === 'leader' ? await readClosedTables(client) : [],
      schemaChanges: identity?.role === 'leader' ? await readSchemaChanges(client) : [],
      partitions: identity === null ? [] : await readPartitions(client),
      walLsn: row === undefined || row.wal === null ? null : parseLsn(row.wal),
      agentRuns: row?.agent === 't',
      agentError,
      slots: await readSlotWal(client, slotPattern(this.#cluster.name)),
      reached,
      slotsElsewhere: idle.filter((slot) => slot.database !== reached.name),
    };
  }

  #session(node: string): Promise<Client> {
    const known = this.#sessions.get(node);
    if (known !== undefined) return known;
    const opening = this.#connect(node);
    // Its failure is handled by the reads that await the session; none may be waiting by then.
    opening.catch(() => undefined);
    this.#sessions.set(node, opening);
    return opening;
  }

  async #connect(node: string): Promise<Client> {
    const client = await connectPostgres(this.#cluster.settings.nodeUrl(node), {
      applicationName: `understudy ${node} status`,
      connectTimeoutMs: databaseTimeoutMs,
    });
    // So that a read that timed out here ends on the server too.
    await client.query(`SET statement_timeout = ${databaseTimeoutMs}`);
    return client;
  }

  /** A session that is still being opened is closed once it is open. */
  #dropSession(node: string): void {
    const session = this.#sessions.get(node);
    this.#sessions.delete(node);
    if (session === undefined) return;
    this.#end(session.then((client) => client.end()));
  }

  #end(closing: Promise<unknown>): void {
    const ending = closing
      .catch((error: unknown) => {
        this.#cluster.around.log.debug({ error }, 'could not close a connection of the status');
      })
      .finally(() => this.#ending.delete(ending));
    this.#ending.add(ending);
  }

  async #readKafka(): Promise<Pick<FleetFacts, 'control' | 'topic' | 'topicProblems'>> {
    const began = this.#cluster.around.nowMs();
    const control = await found(() => this.#readControl(), kafkaTimeoutMs, 'the control log');
    if (control.kind === 'missing') {
      this.#dropControl();
      // It is on the same brokers, and without the control log a topic does not show the leader.
      return { control, topic: control };
    }
    const spentMs = this.#cluster.around.nowMs() - began;
    const partitions = control.value.stream?.partitions ?? this.#cluster.settings.partitions;
    const restMs = Math.max(1, kafkaTimeoutMs - spentMs);
    const [topic, settings] = await Promise.all([
      found(() => this.#readTopic(partitions), restMs, 'the topic'),
      found(() => readTopicProblems(this.#cluster), restMs, 'the settings of the topics'),
    ]);
    if (topic.kind === 'missing') await this.#dropReader();
    // A user that may not read settings learns of that from `check`.
    const hasSettings = settings.kind === 'found' && control.value.stream !== null;
    return { control, topic, topicProblems: hasSettings ? settings.value : [] };
  }

  async #readControl(): Promise<ControlState> {
    if (this.#givenControl !== null) return this.#givenControl.state;
    this.#control ??= this.#openControl();
    // Its failure is handled by the reads that await it; none may be waiting by then.
    this.#control.catch(() => undefined);
    const control = await this.#control;
    return control.state;
  }

  /** A quick probe finds unreachable brokers, before anything begins that retries for longer. */
  async #openControl(): Promise<ControlLog> {
    const releasers = this.#controlReleasers;
    await probeKafka(this.#cluster.kafka, probeTimeoutMs);
    const control = await this.#cluster.openControl(releasers, null);
    // After its final failure the next read opens it again and gets the reason.
    void control.ended.then((error) => {
      if (error !== null) this.#dropControl();
    });
    return control;
  }

  #dropControl(): void {
    const control = this.#control;
    const releasers = this.#controlReleasers;
    this.#control = null;
    this.#controlReleasers = new Releasers(statusCloseTimeoutMs);
    if (control !== null) this.#end(control.finally(() => releasers.close()));
  }

  async #readTopic(partitions: number): Promise<TopicFacts> {
    this.#reader ??= {
      reader: createCommittedReader(this.#cluster.kafka, {
        topic: this.#cluster.topic,
        partitions,
      }),
      decoder: new RecordDecoder(noRegistry),
    };
    const { reader, decoder } = this.#reader;
    const watermarks = await reader.watermarks();
    const { checkpoint, point, unfinished } = await readLogEnd(reader, decoder, watermarks);
    return { at: checkpoint?.at ?? null, point, unfinished, watermarks };
  }

  async #dropReader(): Promise<void> {
    const open = this.#reader;
    this.#reader = null;
    await open?.reader.close();
  }
}

/** One status, with connections of its own. */
export async function fleetStatus(
  cluster: Cluster,
  control: ControlLog | null = null,
): Promise<FleetStatus> {
  const watch = new FleetWatch(cluster, control);
  try {
    return await watch.status();
  } finally {
    await watch.close();
  }
}

/** Any failure of the step becomes the reason why its value is missing. */
async function found<Value>(
  step: () => Promise<Value>,
  timeoutMs: number,
  what: string,
): Promise<Found<Value>> {
  try {
    return { kind: 'found', value: await within(step(), timeoutMs, what) };
  } catch (error) {
    return { kind: 'missing', reason: reasonOf(error) };
  }
}

function within<Value>(promise: Promise<Value>, timeoutMs: number, what: string): Promise<Value> {
  return withTimeout(promise, timeoutMs, () => statusPartTimeout(what, timeoutMs));
}

function reasonOf(error: unknown): string {
  const message = error instanceof Error ? error.message || error.name : String(error);
  return message.split('\n', 1)[0] ?? message;
}
