/**
 * Makes a cluster: topics, the `understudy` schema and the publication on every node, the leader's
 * slot, the first epoch. Flows in: a checked configuration; flows out: the new stream. What exists
 * already is refused before anything is made; a failure on the way takes back what was made.
 *
 * The order matters: the publication before the slot, so that a transaction that was open when the
 * tables were published is waited for by the slot; which tables hold rows is looked up, and the
 * schema is read, in the slot's own snapshot, so that nothing falls between them and the stream.
 */
import { Client } from 'pg';
import type { SchemaPayload } from '../../catalog/dump/schema-payload.ts';
import { saveRelation } from '../../catalog/known-relations.ts';
import { inTransaction, qualifiedName, sessionConfig } from '../../catalog/postgres-session.ts';
import { createPublication, dropPublication } from '../../catalog/publication.ts';
import { readServer, readTables } from '../../catalog/read-catalog.ts';
import { displayName, type TableShape } from '../../catalog/table.ts';
import {
  dropUnderstudySchema,
  installUnderstudySchema,
  readNode,
} from '../../catalog/understudy-schema.ts';
import type { EpochBegin, RelationShape, UnfinishedTable } from '../../change/change.ts';
import type { Lsn } from '../../change/lsn.ts';
import { type EpochLsn, formatEpochLsn } from '../../change/position.ts';
import { UnderstudyError } from '../../errors/understudy-error.ts';
import { buildPostData } from '../../follower/schema/schema-build.ts';
import { saveEpoch, writePosition } from '../../follower/state/follower-state.ts';
import { armGuard, removeGuard } from '../../follower/write-guard.ts';
import { createExportedSlot, dropSlot } from '../../leader/stream/slot.ts';
import { Releasers } from '../../lifecycle.ts';
import { deleteTopic, describeTopic } from '../../topic/kafka/admin.ts';
import { RecordEncoder } from '../../topic/records/encoder.ts';
import * as layout from '../../topic/records/layout.ts';
import type { Cluster } from '../cluster.ts';
import type { NodeSession } from '../node/member-session.ts';
import { lockNode } from '../node/node-lock.ts';
import { ownEpoch, writeEpochBegin } from '../promotion/own-epoch.ts';
import { giveSchema, initialParts, readInitialSchema } from '../provision/initial-schema.ts';
import {
  createTopics,
  refuseFollowerRows,
  replaceRows,
  shapesOf,
  unfinishedAtFirst,
} from '../provision/initial-stream.ts';

interface Initialised {
  readonly cluster: string;
  readonly stream: string;
  readonly leader: string;
  readonly lsn: string;
  readonly tables: readonly string[];
  /** Relation ids of tables that hold rows, which the leader's agent reads. */
  readonly unfinished: readonly string[];
  /** Followers whose tables were made from the leader's schema. */
  readonly built: readonly string[];
}

import { schemaBuildOptions } from '../provision/schema-finish.ts';
import { rememberSchema } from '../provision/schema-renewal.ts';

type OnStep = (line: string) => void;

interface StreamStart {
  readonly startLsn: Lsn;
  readonly unfinished: readonly UnfinishedTable[];
  /** Null where tables are made by hand. */
  readonly schema: SchemaPayload | null;
}

/** Creating a slot waits for the open transactions of the whole server. */
const slotTimeoutMs = 60_000;

interface InitOptions {
  readonly leader: string;
  /** Whether the leader's rows may take the place of what followers hold. */
  readonly replaceRows: boolean;
}

export async function initialise(
  cluster: Cluster,
  options: InitOptions,
  onStep: OnStep,
): Promise<Initialised> {
  const releasers = new Releasers();
  try {
    return await new Initialisation(cluster, options, onStep, releasers).run();
  } finally {
    await releasers.close();
  }
}

class Initialisation {
  readonly #cluster: Cluster;
  readonly #leader: string;
  readonly #replaceRows: boolean;
  readonly #onStep: OnStep;
  readonly #releasers: Releasers;
  readonly #streamId: string;
  readonly #undo: (() => Promise<unknown>)[] = [];

  constructor(cluster: Cluster, options: InitOptions, onStep: OnStep, releasers: Releasers) {
    this.#cluster = cluster;
    this.#leader = options.leader;
    this.#replaceRows = options.replaceRows;
    this.#onStep = onStep;
    this.#releasers = releasers;
    this.#streamId = cluster.around.randomId();
  }

  async run(): Promise<Initialised> {
    const nodes = await this.#connectNodes();
    await this.#refuseExisting(nodes);
    try {
      return await this.#make(nodes);
    } catch (error) {
      await this.#takeBack();
      throw error;
    }
  }

  async #connectNodes(): Promise<NodeSession[]> {
    const { settings } = this.#cluster;
    const nodes: NodeSession[] = [];
    for (const name of settings.nodeNames) {
      const url = settings.nodeUrl(name);
      const lock = await lockNode(url, settings.maintenanceDatabase, name);
      this.#releasers.push(`the lock of ${name}`, () => lock.release());
      const client = await this.#cluster.openSession(this.#releasers, name, 'init');
      nodes.push({ name, client });
    }
    return nodes;
  }

  async #refuseExisting(nodes: readonly NodeSession[]): Promise<void> {
    const { kafka, topic, name } = this.#cluster;
    for (const existing of [topic, layout.controlTopic(name)]) {
      if ((await describeTopic(kafka, existing)) !== null) {
        throw exists(`the topic ${existing} exists already`);
      }
    }
    for (const { name: node, client } of nodes) {
      const known = await readNode(client);
      if (known !== null) throw exists(`node ${node} belongs to the cluster ${known.cluster}`);
    }
  }

  async #make(nodes: readonly NodeSession[]): Promise<Initialised> {
    const { settings } = this.#cluster;
    const leader = this.#leaderOf(nodes);
    const tables = await readTables(leader.client, settings.tables);
    const published = tables.filter(({ persistence }) => persistence === 'permanent');
    const shapes = shapesOf(published, settings.keyless);
    this.#onStep('creating the topics');
    const { kafka } = this.#cluster;
    await createTopics(this.#cluster, (topic) => this.#undo.push(() => deleteTopic(kafka, topic)));
    await this.#installSchema(leader);
    await this.#publish(leader, published, shapes);
    this.#onStep(`creating the slot on ${leader.name} and reading what is there`);
    const start = await this.#makeSlot(leader, published, shapes);
    const { schema } = start;
    const built: string[] = [];
    for (const node of nodes) {
      if (node === leader) continue;
      this.#onStep(`preparing node ${node.name}`);
      await this.#installSchema(node);
      const tables = { published, shapes, areEmpty: start.unfinished.length === 0 };
      const isBuilt = schema !== null && (await giveSchema(this.#cluster, node, schema, tables));
      if (isBuilt) {
        built.push(node.name);
        // The next init takes the tables for a follower's own: then they have to be whole.
        const options = schemaBuildOptions(this.#cluster, node.name);
        this.#undo.push(() => buildPostData(node.client, options));
      }
      await this.#publish(node, published, shapes);
      await armGuard(node.client);
      if (this.#replaceRows && !isBuilt) await replaceRows(node, published, shapes);
      else await refuseFollowerRows(node, published);
    }
    this.#onStep('beginning epoch 1');
    const at = await this.#beginEpoch(nodes, leader, start);
    return {
      cluster: this.#cluster.name,
      stream: this.#streamId,
      leader: leader.name,
      lsn: formatEpochLsn(at),
      tables: published.map(displayName),
      unfinished: start.unfinished.map(({ relation }) => relation),
      built,
    };
  }

  #leaderOf(nodes: readonly NodeSession[]): NodeSession {
    const leader = nodes.find(({ name }) => name === this.#leader);
    if (leader !== undefined) return leader;
    throw new UnderstudyError('NODE_UNKNOWN', `no node ${this.#leader}`, 'See understudy.yaml.');
  }

  async #installSchema({ name, client }: NodeSession): Promise<void> {
    this.#undo.push(() => dropUnderstudySchema(client));
    this.#undo.push(() => removeGuard(client));
    await installUnderstudySchema(client, {
      cluster: this.#cluster.name,
      name,
      streamId: this.#streamId,
      role: name === this.#leader ? 'leader' : 'follower',
      epoch: 1,
      startNumber: 0n,
    });
  }

  async #publish(
    { client }: NodeSession,
    published: readonly TableShape[],
    shapes: ReadonlyMap<string, RelationShape>,
  ): Promise<void> {
    const publication = layout.publicationName(this.#cluster.name);
    this.#undo.push(() => dropPublication(client, publication));
    const own = await readTables(client, ['*.*']);
    await inTransaction(client, async () => {
      for (const [table, shape] of shapes) {
        await saveRelation(
          client,
          shape,
          own.find((other) => qualifiedName(other.schema, other.name) === table) ?? null,
        );
      }
      await createPublication(client, publication, published);
    });
  }

  /** The slot's exported snapshot is what came before the stream. */
  async #makeSlot(
    leader: NodeSession,
    tables: readonly TableShape[],
    shapes: ReadonlyMap<string, RelationShape>,
  ): Promise<StreamStart> {
    const url = this.#cluster.settings.nodeUrl(leader.name);
    const applicationName = `understudy ${leader.name} init`;
    const config = { ...sessionConfig(url, { applicationName }), replication: 'database' };
    const walsender = new Client(config);
    walsender.on('error', (error) =>
      this.#cluster.around.log.warn({ error }, 'lost the walsender'),
    );
    await walsender.connect();
    const slot = layout.slotName(this.#cluster.name, 1);
    try {
      this.#undo.push(() => dropSlot(leader.client, slot));
      const created = await createExportedSlot(walsender, leader.client, slot, slotTimeoutMs);
      const look = async (): Promise<Omit<StreamStart, 'startLsn'>> => {
        await leader.client.query(`SET TRANSACTION SNAPSHOT '${created.snapshot}'`);
        const unfinished = await unfinishedAtFirst(leader, tables, shapes, this.#replaceRows);
        const { snapshot } = created;
        const schema = await readInitialSchema(this.#cluster, leader, snapshot, shapes);
        return { unfinished, schema };
      };
      const looked = await inTransaction(leader.client, look, 'REPEATABLE READ');
      return { startLsn: created.consistentPoint, ...looked };
    } finally {
      await walsender.end();
    }
  }

  async #beginEpoch(
    nodes: readonly NodeSession[],
    leader: NodeSession,
    { startLsn, unfinished, schema }: StreamStart,
  ): Promise<EpochLsn> {
    const { settings, around, topic, registry, kafka } = this.#cluster;
    const { partitions } = settings;
    const control = await this.#cluster.openControl(this.#releasers, leader.name);
    await control.append({
      kind: 'stream',
      streamId: this.#streamId,
      cluster: this.#cluster.name,
      partitions,
      topic: { ...settings.topicOverrides },
      time: new Date(around.nowMs()).toISOString(),
    });
    // The smallest one ever set decides whether a gap is age or damage.
    const described = await describeTopic(kafka, topic);
    const lag = Number(described?.settings['min.compaction.lag.ms'] ?? 0);
    await control.append({ kind: 'compaction-lag', ms: lag });
    const reader = this.#cluster.openReader(this.#releasers, partitions);
    const encoder = await RecordEncoder.open({ topic, partitions, registry });
    const server = await readServer(leader.client);
    const begin: EpochBegin = {
      streamId: this.#streamId,
      epoch: 1,
      leader: leader.name,
      systemId: server.systemId,
      timeline: server.timeline,
      base: null,
      startLsn,
      slot: layout.slotName(this.#cluster.name, 1),
      keySchemaId: encoder.keySchemaId,
      unfinished,
    };
    const parts = initialParts(begin, schema);
    const timeMicros = BigInt(around.nowMs()) * 1000n;
    const written = parts.length === 0 ? [] : await encoder.encodeSchema(parts, [], timeMicros);
    const nothing = { checkpoint: null, point: null, begin: null, pastCheckpoint: [] };
    const owned = await ownEpoch(
      {
        control,
        node: leader.name,
        around,
        createProducer: () => this.#cluster.createProducer(partitions),
        drain: async () => ({ ...nothing, unhealed: null, unfinished: [] }),
        begin: async (_epoch, _end, producer) => {
          const checkpoint = await writeEpochBegin(
            producer,
            reader,
            encoder,
            begin,
            around,
            written,
          );
          return { checkpoint, unfinished };
        },
        onStep: (step) => around.log.debug({ step }, 'owning epoch 1'),
      },
      1,
    );
    if (owned === null || owned.epoch !== 1) throw exists('somebody else claimed the first epoch');
    await owned.producer.close();
    const position = {
      streamId: this.#streamId,
      at: owned.checkpoint.at,
      commitTimeMicros: BigInt(around.nowMs()) * 1000n,
      checkpoint: owned.checkpoint,
      appendMs: owned.checkpoint.nextOffsets.map(() => around.nowMs()),
      unfinished: unfinished.map(({ relation }) => relation),
    };
    for (const { client } of nodes) {
      await inTransaction(client, async () => {
        await saveEpoch(client, begin);
        await writePosition(client, position, layout.formatVersion);
        if (schema !== null)
          await rememberSchema(client, { epoch: 1, lsn: startLsn }, schema, parts);
      });
    }
    return owned.checkpoint.at;
  }

  /** In reverse; what cannot be taken back is told, and `destroy` removes it. */
  async #takeBack(): Promise<void> {
    const { log } = this.#cluster.around;
    for (const undo of this.#undo.reverse()) {
      const [result] = await Promise.allSettled([undo()]);
      if (result?.status === 'rejected') {
        log.warn({ error: result.reason }, 'could not take a step back: run understudy destroy');
      }
    }
  }
}

function exists(what: string): UnderstudyError {
  return new UnderstudyError(
    'ALREADY_INITIALISED',
    what,
    'Remove the old cluster first (understudy destroy --yes), or choose another cluster name.',
  );
}
