/**
 * Checks all requirements of a cluster: servers, settings, permissions, tables, brokers, topics and
 * the registry. It returns one finding per cause, each with its remedy, and changes nothing. All
 * servers are checked concurrently; an unreachable one gives that finding alone.
 */
import { requireFittingDump } from '../../catalog/dump/schema-dump.ts';
import type { Cluster } from '../cluster.ts';
import { readTopicsFacts } from '../node/stream-facts.ts';
import { checkKafka, checkRegistry } from './check-kafka.ts';
import { enumerate, errorFinding, type Finding, findingOf, inOrderOfUrgency } from './finding.ts';
import { judgeFollowerTables } from './judge-copies.ts';
import { judgeLeaderTables, judgeLocales, judgePatterns, judgeServers } from './judge-fleet.ts';
import { judgeNode, judgeVersion, nodeObject } from './judge-server.ts';
import { judgeStream } from './judge-stream.ts';
import {
  type NodeFacts,
  type NodeTarget,
  probeMaintenanceDatabase,
  readNodeFacts,
  tablesWithRows,
} from './read-node.ts';

interface PreflightOptions {
  /** The node whose tables are the model; null is the leader, before init the first node. */
  readonly leader: string | null;
  /** Before init existing topics are refused by `init`; afterwards they have to match. */
  readonly withTopics: boolean;
  /** Whether rows of followers may be replaced. */
  readonly replaceRows?: boolean;
  /** Whether rows of tables without a key are searched for columns that identify them. */
  readonly findKeys?: boolean;
}

interface Preflight {
  readonly findings: readonly Finding[];
  /** The node whose tables were the model. */
  readonly leader: string;
}

export async function preflight(cluster: Cluster, options: PreflightOptions): Promise<Preflight> {
  const targets = cluster.settings.nodeNames.map((node) => {
    return targetFor(cluster, node, options.findKeys === true);
  });
  const [nodes, kafka, registry] = await Promise.all([
    Promise.all(targets.map((target) => checkNode(target))),
    checkKafka(cluster, options.withTopics),
    checkRegistry(cluster),
  ]);
  const facts = nodes.flatMap((node) => (node.facts === null ? [] : [node.facts]));
  // Brokers that cannot be reached are a finding already.
  const isKafkaDown = kafka.some(({ code }) => code === 'KAFKA_UNREACHABLE');
  const stream = options.withTopics && !isKafkaDown ? await checkStream(cluster, facts) : [];
  const findings = inOrderOfUrgency([
    ...nodes.flatMap((node) => node.findings),
    ...kafka,
    ...stream,
    ...registry,
    ...(await judgeFleet(cluster, options, facts)),
  ]);
  const leader = findLeader(cluster, options, facts)?.name ?? wantedLeader(cluster, options);
  return { findings, leader };
}

async function checkStream(cluster: Cluster, nodes: readonly NodeFacts[]): Promise<Finding[]> {
  try {
    const { name, topic, settings } = cluster;
    const topics = await readTopicsFacts(cluster);
    return judgeStream(name, topic, topics, nodes, settings.nodeNames);
  } catch (error) {
    return [findingOf(error, 'kafka')];
  }
}

/** A URL that cannot be used is an error of the file, thrown before anything is connected to. */
function targetFor(
  { settings, name, around }: Cluster,
  node: string,
  findsKeys = false,
): NodeTarget {
  return {
    node,
    url: settings.nodeUrl(node),
    cluster: name,
    tables: settings.tables,
    maintenanceDatabase: settings.maintenanceDatabase,
    findsKeys,
    nowMs: around.nowMs,
  };
}

interface CheckedNode {
  readonly facts: NodeFacts | null;
  readonly findings: readonly Finding[];
}

async function checkNode(target: NodeTarget): Promise<CheckedNode> {
  const object = nodeObject(target.node);
  try {
    const reading = await readNodeFacts(target);
    if (reading.kind === 'too old') {
      return { facts: null, findings: [judgeVersion(target.node, reading.server)] };
    }
    const findings = judgeNode(reading.facts, target.cluster);
    // Only where the server accepts the role at all; otherwise the reason is the same.
    const refused = await probeMaintenanceDatabase(target).then(
      () => [],
      (error: unknown) => [findingOf(error, object)],
    );
    return { facts: reading.facts, findings: [...findings, ...refused] };
  } catch (error) {
    return { facts: null, findings: [findingOf(error, object)] };
  }
}

/** Without the model there is nothing to compare others with. */
async function judgeFleet(
  cluster: Cluster,
  options: PreflightOptions,
  nodes: readonly NodeFacts[],
): Promise<Finding[]> {
  const findings = judgeServers(nodes);
  const leader = findLeader(cluster, options, nodes);
  if (leader === null) return findings;
  const others = nodes.filter((node) => node !== leader);
  findings.push(...judgeLocales(leader, others));
  const { tables, keyless } = cluster.settings;
  const isInitialised = nodes.some(({ identity }) => identity?.cluster === cluster.name);
  const pgDump = isInitialised ? null : cluster.settings.pgDump();
  findings.push(...judgePatterns(leader, tables, options.withTopics));
  findings.push(...judgeLeaderTables(leader, keyless, others));
  for (const follower of others) {
    // The agent of a new node builds it from the topic.
    const createsTables = isInitialised ? follower.identity === null : pgDump !== null;
    findings.push(...judgeFollowerTables(leader, follower, keyless, createsTables));
  }
  if (pgDump !== null) findings.push(...(await checkDump(pgDump, leader)));
  if (isInitialised) return findings;
  const replaceRows = options.replaceRows === true;
  return [...findings, ...(await findRows(cluster, leader, nodes, replaceRows))];
}

async function checkDump(pgDump: string, { server }: NodeFacts): Promise<Finding[]> {
  try {
    await requireFittingDump(pgDump, server.version);
    return [];
  } catch (error) {
    return [findingOf(error, 'pg_dump')];
  }
}

/**
 * The database of a former leader is a leader's too until its agent starts: the newest epoch wins.
 */
function findLeader(
  cluster: Cluster,
  options: PreflightOptions,
  nodes: readonly NodeFacts[],
): NodeFacts | null {
  const leading = nodes
    .filter(({ identity }) => identity?.cluster === cluster.name && identity.role === 'leader')
    .sort((a, b) => (b.identity?.epoch ?? 0) - (a.identity?.epoch ?? 0))[0];
  if (options.leader === null && leading !== undefined) return leading;
  const wanted = wantedLeader(cluster, options);
  return nodes.find(({ name }) => name === wanted) ?? null;
}

function wantedLeader(cluster: Cluster, options: PreflightOptions): string {
  return options.leader ?? cluster.settings.nodeNames[0] ?? '';
}

/** The leader's rows are read in the order of their keys; a follower must not hold any. */
async function findRows(
  cluster: Cluster,
  leader: NodeFacts,
  nodes: readonly NodeFacts[],
  replaceRows: boolean,
): Promise<Finding[]> {
  const mayHold = (node: NodeFacts): boolean => node === leader || replaceRows;
  const { keyless } = cluster.settings;
  const names = new Set(leader.matchedTables.map(({ schema, name }) => `${schema}.${name}`));
  const found = await Promise.all(
    nodes.map(async (node): Promise<Finding[]> => {
      const tables = node.allTables.filter(
        ({ schema, name, kind, persistence, identityAttnums }) =>
          names.has(`${schema}.${name}`) &&
          kind === 'ordinary' &&
          persistence === 'permanent' &&
          (!mayHold(node) || (keyless === 'append' && identityAttnums === null)),
      );
      try {
        const holding = await tablesWithRows(targetFor(cluster, node.name), tables);
        return holding.length === 0 ? [] : [notEmpty(node.name, holding, node === leader)];
      } catch (error) {
        return [findingOf(error, nodeObject(node.name))];
      }
    }),
  );
  return found.flat();
}

function notEmpty(node: string, tables: readonly string[], leads: boolean): Finding {
  const names = enumerate(tables);
  return errorFinding(
    'TABLE_NOT_EMPTY',
    nodeObject(node),
    leads
      ? `tables of node ${node} hold rows and have no key to read them by: ${names}`
      : `tables of node ${node}, which is to follow, hold rows: ${names}`,
    leads
      ? 'Give them a key on every node (`understudy check --sql`), or empty them.'
      : 'Rows come from the leader. Let them be replaced: `understudy init --replace-rows`; or ' +
          'empty the tables on that node (TRUNCATE).',
  );
}
