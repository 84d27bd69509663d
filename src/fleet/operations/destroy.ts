/**
 * The verb `destroy`: removes what Understudy created: slots, publications, guards, databases that
 * a rebuild left and the `understudy` schema in every database that belongs to the stream, then the
 * topics. It returns what was, or would be, removed. The control log is read first: databases of
 * another stream are not touched, and a stream that is more than what understudy.yaml leads to has
 * to be named. All nodes are locked before anything is removed, so a running agent prevents it. A
 * node that cannot be reached keeps its slot, which keeps WAL, and is named.
 */
import type { Client } from 'pg';
import { hasCode, UnderstudyError } from '../../errors/understudy-error.ts';
import { Releasers } from '../../lifecycle.ts';
import { deleteTopic } from '../../topic/kafka/admin.ts';
import { controlTopic } from '../../topic/records/layout.ts';
import type { Cluster } from '../cluster.ts';
import { lockNode } from '../node/node-lock.ts';
import { readFoundDatabase, readTopicsFacts } from '../node/stream-facts.ts';
import { type Remains, readRemains, removeFromDatabase } from './destroy-steps.ts';
import {
  type DestroyPlan,
  type FoundNode,
  judgeDestroy,
  requireConfirmed,
} from './judge-destroy.ts';

export interface Dismantled extends Omit<DestroyPlan, 'members' | 'lastCommitMs'> {
  readonly cluster: string;
  readonly removed: boolean;
  /** In UTC; null where no transaction is known. */
  readonly lastCommit: string | null;
  /** Nodes whose databases are locked by an agent. */
  readonly agents: readonly string[];
  readonly nodes: readonly ({ readonly name: string } & Remains)[];
  readonly unreachable: readonly string[];
  readonly topics: readonly string[];
}

/** What the user has confirmed. */
interface Confirmation {
  readonly yes: boolean;
  /** The id of the stream; null where it is not named. */
  readonly stream: string | null;
}

export async function dismantle(
  cluster: Cluster,
  { yes, stream: named }: Confirmation,
): Promise<Dismantled> {
  const releasers = new Releasers();
  try {
    const topics = await readTopicsFacts(cluster);
    const found = await findNodes(cluster, releasers);
    const { name, topic } = cluster;
    const plan = judgeDestroy({ cluster: name, topic, topics, nodes: found }, named);
    const removes = yes || named !== null;
    const members = await remainsOf(cluster, found, plan.members);
    const existing = [topics.changes && topic, topics.control && controlTopic(name)];
    const topicNames = existing.filter((one) => one !== null);
    if (removes) {
      requireConfirmed(name, plan, named);
      await lockAll(cluster, releasers, members);
      for (const { name: node, client, remains } of members) {
        await removeFromDatabase(cluster, node, client, remains);
      }
      for (const one of topicNames) await deleteTopic(cluster.kafka, one);
    }
    const { lastCommitMs, stream, leader, lastPoint, reasons } = plan;
    return {
      cluster: name,
      removed: removes,
      stream,
      leader,
      lastPoint,
      lastCommit: lastCommitMs === null ? null : new Date(lastCommitMs).toISOString(),
      reasons,
      agents: found.filter(({ database }) => database?.isServed).map((node) => node.name),
      nodes: members.map(({ name: node, remains }) => ({ name: node, ...remains })),
      unreachable: found.filter(({ isUnreachable }) => isUnreachable).map((node) => node.name),
      topics: topicNames,
    };
  } finally {
    await releasers.close();
  }
}

interface Reached extends FoundNode {
  readonly client: Client | null;
  readonly isUnreachable: boolean;
}

async function findNodes(cluster: Cluster, releasers: Releasers): Promise<Reached[]> {
  const nodes: Reached[] = [];
  for (const name of cluster.settings.nodeNames) {
    const unknown = { name, client: null, database: null };
    try {
      const client = await cluster.openSession(releasers, name, 'destroy');
      const database = await readFoundDatabase(name, client);
      nodes.push({ name, client, database, problem: null, isUnreachable: false });
    } catch (error) {
      if (!(error instanceof UnderstudyError)) throw error;
      const isUnreachable = hasCode(error, 'POSTGRES_UNREACHABLE');
      nodes.push({ ...unknown, isUnreachable, problem: `node ${name}: ${error.message}` });
    }
  }
  return nodes;
}

interface Member {
  readonly name: string;
  readonly client: Client;
  readonly remains: Remains;
}

async function remainsOf(
  cluster: Cluster,
  found: readonly Reached[],
  members: readonly string[],
): Promise<Member[]> {
  const all: Member[] = [];
  for (const { name, client, database } of found) {
    if (client === null || database === null || !members.includes(name)) continue;
    const remains = await readRemains(client, cluster, database.reached.name);
    all.push({ name, client, remains });
  }
  return all;
}

/** Throws where an agent serves a node. */
async function lockAll(
  { settings }: Cluster,
  releasers: Releasers,
  members: readonly Member[],
): Promise<void> {
  for (const { name } of members) {
    const lock = await lockNode(settings.nodeUrl(name), settings.maintenanceDatabase, name);
    releasers.push(`the lock of ${name}`, () => lock.release());
  }
}
