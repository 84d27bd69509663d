/**
 * The verb `init`: creates a cluster, that is the topics, the `understudy` schema and the
 * publication on every node, the leader's slot and the first epoch. A topic or a node of an
 * existing cluster is refused before anything is created; a failure undoes the steps before it.
 *
 * The order matters. The publication comes before the slot, so that the slot waits for transactions
 * that were open when the tables were published. Which tables hold rows is read in the slot's own
 * snapshot, and so is the schema, so that nothing is missing between them and the stream.
 */
import { readTables } from '../../catalog/read-catalog.ts';
import { displayName } from '../../catalog/table.ts';
import { readNode } from '../../catalog/understudy-schema.ts';
import { formatEpochLsn } from '../../change/position.ts';
import { nodeOfCluster, topicExists } from '../../errors/cluster.ts';
import { unknownNode } from '../../errors/usage.ts';
import { Releasers } from '../../lifecycle.ts';
import { deleteTopic, describeTopic } from '../../topic/kafka/admin.ts';
import { controlTopic } from '../../topic/records/layout.ts';
import type { Cluster } from '../cluster.ts';
import type { NodeSession } from '../node/member-session.ts';
import { createTopics, shapesOf } from '../provision/initial-stream.ts';
import {
  beginFirstEpoch,
  connectNodes,
  createFirstSlot,
  type InitTables,
  installNode,
  type NewStream,
  prepareFollower,
  publishTables,
} from './init-steps.ts';

interface Initialised {
  readonly cluster: string;
  readonly stream: string;
  readonly leader: string;
  readonly lsn: string;
  readonly tables: readonly string[];
  /** Relation ids of tables that hold rows, which the leader's agent backfills. */
  readonly unfinished: readonly string[];
  /** Followers whose tables were created from the leader's schema. */
  readonly built: readonly string[];
}

interface InitOptions {
  readonly leader: string;
  /** Whether the leader's rows may replace those of followers. */
  readonly replaceRows: boolean;
}

export async function initialise(
  cluster: Cluster,
  options: InitOptions,
  onStep: (line: string) => void,
): Promise<Initialised> {
  const releasers = new Releasers();
  const undoSteps: (() => Promise<unknown>)[] = [];
  const stream: NewStream = {
    ...options,
    cluster,
    streamId: cluster.around.randomId(),
    releasers,
    undo: (step) => undoSteps.push(step),
  };
  try {
    const nodes = await connectNodes(cluster, releasers);
    await refuseExisting(cluster, nodes);
    return await create(stream, nodes, onStep).catch(async (error: unknown) => {
      await undoAll(cluster, undoSteps);
      throw error;
    });
  } finally {
    await releasers.close();
  }
}

async function refuseExisting(
  { kafka, topic, name }: Cluster,
  nodes: readonly NodeSession[],
): Promise<void> {
  for (const existing of [topic, controlTopic(name)]) {
    if ((await describeTopic(kafka, existing)) !== null) throw topicExists(existing);
  }
  for (const { name: node, client } of nodes) {
    const known = await readNode(client);
    if (known !== null) throw nodeOfCluster(node, known.cluster);
  }
}

async function create(
  stream: NewStream,
  nodes: readonly NodeSession[],
  onStep: (line: string) => void,
): Promise<Initialised> {
  const { cluster, undo } = stream;
  const leader = nodes.find(({ name }) => name === stream.leader);
  if (leader === undefined) {
    throw unknownNode('understudy.yaml', stream.leader, null, cluster.settings.nodeNames);
  }
  const tables = await streamTablesOf(cluster, leader);
  onStep('creating the topics');
  await createTopics(cluster, (topic) => undo(() => deleteTopic(cluster.kafka, topic)));
  await installNode(stream, leader);
  await publishTables(stream, leader, tables);
  onStep(`creating the slot on node ${leader.name} and reading its schema`);
  const start = await createFirstSlot(stream, leader, tables);
  const built: string[] = [];
  for (const node of nodes) {
    if (node === leader) continue;
    onStep(`preparing node ${node.name}`);
    if (await prepareFollower(stream, node, tables, start)) built.push(node.name);
  }
  onStep('beginning epoch 1');
  const at = await beginFirstEpoch(stream, nodes, leader, start);
  return {
    cluster: cluster.name,
    stream: stream.streamId,
    leader: leader.name,
    lsn: formatEpochLsn(at),
    tables: tables.published.map(displayName),
    unfinished: start.unfinished.map(({ relation }) => relation),
    built,
  };
}

async function streamTablesOf({ settings }: Cluster, { client }: NodeSession): Promise<InitTables> {
  const tables = await readTables(client, settings.tables);
  const published = tables.filter(({ persistence }) => persistence === 'permanent');
  return { published, shapes: shapesOf(published, settings.keyless) };
}

/** In reverse order. A step that cannot be undone is logged, and `destroy` removes its result. */
async function undoAll(
  { around }: Cluster,
  steps: readonly (() => Promise<unknown>)[],
): Promise<void> {
  for (const undo of steps.toReversed()) {
    const [result] = await Promise.allSettled([undo()]);
    if (result?.status === 'rejected') {
      const hint = 'Remove what is left: understudy destroy --yes';
      around.log.warn({ error: result.reason, hint }, 'could not undo a step of init');
    }
  }
}
