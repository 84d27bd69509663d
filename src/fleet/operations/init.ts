/**
 * The verb `init`: creates a cluster, that is the topics, the `understudy` schema and the
 * publication on every node, the leader's slot and the first epoch. A topic or a node of an
 * existing cluster is refused before anything is created; a failure, or a signal to stop, undoes
 * the steps before it. What an earlier `init` of the same databases left is removed first.
 *
 * The order matters. The publication comes before the slot, so that the slot waits for transactions
 * that were open when the tables were published. Which tables hold rows is read in the slot's own
 * snapshot, and so is the schema, so that nothing is missing between them and the stream.
 */
import { databaseOfUrl } from '../../catalog/postgres-session.ts';
import { readTables } from '../../catalog/read-catalog.ts';
import { displayName } from '../../catalog/table.ts';
import { formatEpochLsn } from '../../change/position.ts';
import { hasCode, UnderstudyError } from '../../errors/understudy-error.ts';
import { unknownNode } from '../../errors/usage.ts';
import { hit } from '../../failpoints.ts';
import { buildPostData, openBuild } from '../../follower/schema/schema-build.ts';
import { Releasers } from '../../lifecycle.ts';
import { deleteTopic } from '../../topic/kafka/admin.ts';
import { controlTopic } from '../../topic/records/layout.ts';
import type { Cluster } from '../cluster.ts';
import type { FoundDatabase } from '../node/judge-belonging.ts';
import type { NodeSession } from '../node/member-session.ts';
import { readFoundDatabase, readTopicsFacts } from '../node/stream-facts.ts';
import { createTopics, shapesOf } from '../provision/initial-stream.ts';
import { schemaBuildOptions } from '../provision/schema-finish.ts';
import { readRemains, removeFromDatabase } from './destroy-steps.ts';
import {
  beginFirstEpoch,
  connectNodes,
  createFirstSlot,
  type InitTables,
  installNode,
  type NewStream,
  prepareFollowers,
  publishTables,
} from './init-steps.ts';
import { judgeInit } from './judge-init.ts';

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
  signal: AbortSignal,
): Promise<Initialised> {
  const releasers = new Releasers();
  const undoSteps: (() => Promise<unknown>)[] = [];
  const stream: NewStream = {
    ...options,
    cluster,
    streamId: cluster.around.randomId(),
    releasers,
    onStep,
    signal,
    undo: (step) => undoSteps.push(step),
  };
  try {
    const nodes = await connectNodes(cluster, releasers);
    // Now that no other command works on these databases.
    const verdict = judgeInit(await readInitFacts(cluster, nodes));
    if (verdict.kind === 'remains') {
      onStep('an earlier init did not end: removing what it left');
      await removeRemains(cluster, nodes, verdict.nodes);
    }
    return await create(stream, nodes).catch(async (error: unknown) => {
      if (signal.aborted) onStep('stopped: removing what was created');
      await undoAll(cluster, undoSteps);
      throw signal.aborted ? signal.reason : error;
    });
  } finally {
    await releasers.close();
  }
}

/**
 * Refuses a cluster that exists, by its control log, before any other check: a copy of
 * understudy.yaml must hear of that first. Databases that cannot be read are left to those checks.
 */
export async function refuseExisting(cluster: Cluster): Promise<void> {
  const releasers = new Releasers();
  try {
    const nodes: NodeSession[] = [];
    for (const name of cluster.settings.nodeNames) {
      try {
        nodes.push({ name, client: await cluster.openSession(releasers, name, 'init') });
      } catch (error) {
        if (!(error instanceof UnderstudyError)) throw error;
      }
    }
    judgeInit(await readInitFacts(cluster, nodes));
  } catch (error) {
    // The checks say so, beside what else they find.
    if (!hasCode(error, 'KAFKA_UNREACHABLE')) throw error;
  } finally {
    await releasers.close();
  }
}

async function readInitFacts(cluster: Cluster, nodes: readonly NodeSession[]) {
  const { name, topic } = cluster;
  const topics = await readTopicsFacts(cluster);
  const databases: FoundDatabase[] = [];
  for (const node of nodes) databases.push(await readFoundDatabase(node.name, node.client));
  return { cluster: name, topic, topics, databases };
}

/** The tables that it gave followers stay; they have to be complete. */
async function removeRemains(
  cluster: Cluster,
  nodes: readonly NodeSession[],
  names: readonly string[],
): Promise<void> {
  for (const { name, client } of nodes) {
    if (!names.includes(name)) continue;
    if ((await openBuild(client)) !== null) {
      await buildPostData(client, schemaBuildOptions(cluster, name));
    }
    const database = databaseOfUrl(cluster.settings.nodeUrl(name));
    await removeFromDatabase(cluster, name, client, await readRemains(client, cluster, database));
  }
  for (const topic of [cluster.topic, controlTopic(cluster.name)]) {
    await deleteTopic(cluster.kafka, topic);
  }
}

async function create(stream: NewStream, nodes: readonly NodeSession[]): Promise<Initialised> {
  const { cluster, signal, onStep } = stream;
  const step = (line: string): void => {
    signal.throwIfAborted();
    onStep(line);
  };
  const leader = nodes.find(({ name }) => name === stream.leader);
  if (leader === undefined) {
    throw unknownNode('understudy.yaml', stream.leader, null, cluster.settings.nodeNames);
  }
  const tables = await streamTablesOf(cluster, leader);
  step('creating the topics');
  // The schema before the topics: by it a later init knows that they are of these databases.
  await installNode(stream, leader);
  await hit('init.after-install');
  await makeTopics(stream);
  await hit('init.after-topics');
  signal.throwIfAborted();
  await publishTables(stream, leader, tables);
  step(`creating the slot on node ${leader.name} and reading its schema`);
  const start = await createFirstSlot(stream, leader, tables, { signal, onStep });
  await hit('init.after-slot');
  const followers = nodes.filter((node) => node !== leader);
  step(`preparing ${followers.map(({ name }) => `node ${name}`).join(', ') || 'no follower'}`);
  const built = await prepareFollowers(stream, followers, tables, start);
  await hit('init.after-nodes');
  step('beginning epoch 1');
  const at = await beginFirstEpoch(stream, nodes, leader, start);
  return {
    cluster: cluster.name,
    stream: stream.streamId,
    leader: leader.name,
    lsn: formatEpochLsn(at),
    tables: tables.published.map(displayName),
    unfinished: start.unfinished.map(({ relation }) => relation),
    built: built.map(({ name }) => name),
  };
}

/** Each is undone only where this call has created it. */
async function makeTopics({ cluster, undo }: NewStream): Promise<void> {
  await createTopics(cluster, (topic) => {
    let isOurs = true;
    undo(async () => {
      if (isOurs) await deleteTopic(cluster.kafka, topic);
    });
    return () => {
      isOurs = false;
    };
  });
}

async function streamTablesOf({ settings }: Cluster, { client }: NodeSession): Promise<InitTables> {
  const tables = await readTables(client, settings.tables);
  const published = tables.filter(({ persistence }) => persistence === 'permanent');
  return { published, shapes: shapesOf(published, settings.keyless) };
}

/** In reverse order. A step that cannot be undone is logged; the next init removes its result. */
async function undoAll(
  { around }: Cluster,
  steps: readonly (() => Promise<unknown>)[],
): Promise<void> {
  for (const undo of steps.toReversed()) {
    const [result] = await Promise.allSettled([undo()]);
    if (result?.status === 'rejected') {
      const hint = 'Run `understudy init` again: it removes what is left.';
      around.log.warn({ error: result.reason, hint }, 'could not undo a step of init');
    }
  }
}
