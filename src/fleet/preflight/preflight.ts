/**
 * Looks whether everything is as required before something is done: servers, settings, permissions,
 * tables, brokers, topics, the registry. Flows in: a cluster and who shall lead; flows out: one
 * finding per cause, each with its remedy. Nothing is changed. All servers are looked at at once;
 * of one that cannot be reached that is said, and nothing else.
 */
import { requireFittingDump } from '../../catalog/dump/schema-dump.ts';
import type { Cluster } from '../cluster.ts';
import { lookAtKafka, lookAtRegistry } from './check-kafka.ts';
import { enumerate, errorFinding, type Finding, findingOf, inOrderOfUrgency } from './finding.ts';
import { judgeFollowerTables } from './judge-copies.ts';
import { judgeLeaderTables, judgeLocales, judgePlaces } from './judge-fleet.ts';
import { judgeNode, judgeVersion, nodeObject } from './judge-server.ts';
import {
  lookAtMaintenanceDatabase,
  lookAtNode,
  type NodeFacts,
  type NodeLook,
  tablesWithRows,
} from './read-node.ts';

interface PreflightOptions {
  /** Whose tables are the model; null is who leads now, before init the first of the file. */
  readonly leader: string | null;
  /** Before init topics of this name are init's to refuse; afterwards they have to fit. */
  readonly withTopics: boolean;
  /** Whether rows of followers may be replaced. */
  readonly replaceRows?: boolean;
}

export async function preflight(cluster: Cluster, options: PreflightOptions): Promise<Finding[]> {
  const looks = cluster.settings.nodeNames.map((node) => lookFor(cluster, node));
  const [nodes, kafka, registry] = await Promise.all([
    Promise.all(looks.map((look) => examineNode(look))),
    lookAtKafka(cluster, options.withTopics),
    lookAtRegistry(cluster),
  ]);
  const facts = nodes.flatMap((node) => (node.facts === null ? [] : [node.facts]));
  return inOrderOfUrgency([
    ...nodes.flatMap((node) => node.findings),
    ...kafka,
    ...registry,
    ...(await judgeFleet(cluster, options, facts)),
  ]);
}

/** A URL that cannot be used is an error of the file, thrown before anything is connected to. */
function lookFor({ settings, name }: Cluster, node: string): NodeLook {
  return {
    node,
    url: settings.nodeUrl(node),
    cluster: name,
    tables: settings.tables,
    maintenanceDatabase: settings.maintenanceDatabase,
  };
}

interface ExaminedNode {
  readonly facts: NodeFacts | null;
  readonly findings: readonly Finding[];
}

async function examineNode(look: NodeLook): Promise<ExaminedNode> {
  const object = nodeObject(look.node);
  try {
    const looked = await lookAtNode(look);
    if (looked.kind === 'too old') {
      return { facts: null, findings: [judgeVersion(look.node, looked.server)] };
    }
    const findings = judgeNode(looked.facts, look.cluster);
    // Only where the server lets us in at all; otherwise the reason is the same.
    const refused = await lookAtMaintenanceDatabase(look).then(
      () => [],
      (error: unknown) => [findingOf(error, object)],
    );
    return { facts: looked.facts, findings: [...findings, ...refused] };
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
  const findings = judgePlaces(nodes);
  const leader = leaderOf(cluster, options, nodes);
  if (leader === null) return findings;
  const others = nodes.filter((node) => node !== leader);
  findings.push(...judgeLocales(leader, others));
  const { tables, keyless } = cluster.settings;
  const isInitialised = nodes.some(({ identity }) => identity?.cluster === cluster.name);
  const pgDump = isInitialised ? null : cluster.settings.pgDump();
  findings.push(...judgeLeaderTables(leader, tables, keyless));
  for (const follower of others) {
    findings.push(...judgeFollowerTables(leader, follower, keyless, pgDump !== null));
  }
  if (pgDump !== null) findings.push(...(await lookAtDump(pgDump, leader)));
  if (isInitialised) return findings;
  const replaceRows = options.replaceRows === true;
  return [...findings, ...(await findRows(cluster, leader, nodes, replaceRows))];
}

async function lookAtDump(pgDump: string, { server }: NodeFacts): Promise<Finding[]> {
  try {
    await requireFittingDump(pgDump, server.version);
    return [];
  } catch (error) {
    return [findingOf(error, 'pg_dump')];
  }
}

/** Who says that it leads, of the newest epoch; a former leader says so too until it is started. */
function leaderOf(
  cluster: Cluster,
  options: PreflightOptions,
  nodes: readonly NodeFacts[],
): NodeFacts | null {
  const leading = nodes
    .filter(({ identity }) => identity?.cluster === cluster.name && identity.role === 'leader')
    .sort((a, b) => (b.identity?.epoch ?? 0) - (a.identity?.epoch ?? 0))[0];
  if (options.leader === null && leading !== undefined) return leading;
  const wanted = options.leader ?? cluster.settings.nodeNames[0];
  return nodes.find(({ name }) => name === wanted) ?? null;
}

/** The leader's rows are read in the order of their keys; a follower has none of its own. */
async function findRows(
  cluster: Cluster,
  leader: NodeFacts,
  nodes: readonly NodeFacts[],
  replaceRows: boolean,
): Promise<Finding[]> {
  const mayHold = (node: NodeFacts): boolean => node === leader || replaceRows;
  const names = new Set(leader.matchedTables.map(({ schema, name }) => `${schema}.${name}`));
  const found = await Promise.all(
    nodes.map(async (node): Promise<Finding[]> => {
      const tables = node.allTables.filter(
        ({ schema, name, kind, persistence, identityAttnums }) =>
          names.has(`${schema}.${name}`) &&
          kind === 'ordinary' &&
          persistence === 'permanent' &&
          (!mayHold(node) || (identityAttnums ?? []).length === 0),
      );
      try {
        const holding = await tablesWithRows(lookFor(cluster, node.name), tables);
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
      ? 'Give them a key on every node: ALTER TABLE … ADD COLUMN id bigint GENERATED ALWAYS AS ' +
          'IDENTITY PRIMARY KEY; or empty them.'
      : 'Rows come from the leader: understudy init --replace-rows has them replaced; or empty ' +
          'the tables on that node (TRUNCATE).',
  );
}
