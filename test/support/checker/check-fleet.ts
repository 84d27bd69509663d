/**
 * The checker: reads every node and the whole topic once clients are stopped, and judges the
 * invariants by what it found: of a fleet, its leader, the journal and what watchers saw. It gives
 * a verdict with violations, the first of them first, and what a failover left out.
 */
import type { FleetStatus } from '../../../src/fleet/status/node-status.ts';
import { changesTopic } from '../../../src/topic/records/layout.ts';
import type { Clients } from '../clients.ts';
import type { Fleet } from '../fleet.ts';
import type { NodeName } from '../fleet-options.ts';
import type { Watchers } from '../watchers.ts';
import { tableNamesOf } from '../workloads/all-workloads.ts';
import type { Workload } from '../workloads/workload.ts';
import {
  type Cost,
  judgeCosts,
  judgeDigests,
  judgeFold,
  judgeLag,
  judgeSights,
  judgeStatus,
  type KnownNode,
  type NodeDigests,
} from './judge-fleet.ts';
import { judgeTopic } from './judge-topic.ts';
import { type Contents, judgeWrites } from './judge-writes.ts';
import { readContents, readDigests } from './read-nodes.ts';
import { readWholeTopic } from './read-topic.ts';
import { residentBytes } from './resident-bytes.ts';
import { describe, Findings, type Violation } from './violation.ts';

export interface Checked {
  readonly fleet: Fleet;
  readonly leader: NodeName;
  /** Nodes that are in the fleet, the leader first or not. */
  readonly nodes: readonly NodeName[];
  readonly workloads: readonly Workload[];
  /** Stopped. All that ever wrote to this cluster. */
  readonly clients: readonly Clients[];
  readonly watchers: Watchers | null;
}

export interface Verdict {
  readonly violations: readonly Violation[];
  /** Acknowledged writes that a failover left out. */
  readonly lost: readonly string[];
  readonly acknowledged: number;
  readonly records: number;
  /** That watchers checked. */
  readonly snapshots: number;
  readonly epochs: number;
  /** Where the rows were compared. */
  readonly at: string;
}

/** Generous: a leak of a byte a row would pass it within a soak, a large batch does not. */
const costLimits = { residentBytes: 768 * 1024 ** 2, keptWalBytes: 256 * 1024 ** 2 } as const;
const lagMaxMs = 20_000;
const pollMs = 250;

export async function checkFleet(checked: Checked): Promise<Verdict> {
  const { fleet, leader, nodes, workloads, clients, watchers } = checked;
  const { brokers, partitions } = fleet;
  const at = await fleet.token(leader);
  await fleet.caughtUp(leader, nodes);
  const { status, lag } = await settledStatus(fleet, nodes);
  const tables = tableNamesOf(workloads);
  const digests: NodeDigests[] = [];
  const contents: Contents[] = [];
  for (const node of [leader, ...nodes.filter((name) => name !== leader)]) {
    const session = await fleet.session(node);
    digests.push({ node, tables: await readDigests(session, tables) });
    contents.push(await readContents(session, node, workloads));
    await session.end();
  }
  const [ofLeader] = digests;
  if (ofLeader === undefined) throw new Error('a fleet has a leader');
  const records = await readWholeTopic(brokers, changesTopic(fleet.cluster), partitions);
  const topic = judgeTopic(records);
  const entries = clients.flatMap((one) => one.entries);
  const writes = judgeWrites(entries, contents, topic.epochs);
  const known = await knownNodes(checked, digests);
  const violations = [
    ...judgeSights(watchers?.sights ?? []),
    ...judgeEffort(checked),
    ...topic.violations,
    ...judgeDigests(digests, at),
    ...judgeFold(topic.liveKeys, ofLeader),
    ...writes.violations,
    ...judgeStatus(status, known),
    ...lag,
    ...judgeCosts(await costsOf(checked), costLimits),
  ];
  return {
    ...{ violations, lost: writes.lost, at, snapshots: watchers?.snapshots ?? 0 },
    acknowledged: clients.reduce((sum, one) => sum + one.acknowledged, 0),
    records: records.reduce((sum, partition) => sum + partition.length, 0),
    epochs: topic.epochs.length,
  };
}

/** A check of nothing passes everything: clients wrote, watchers read, no error was unexpected. */
function judgeEffort({ clients, watchers, nodes }: Checked): readonly Violation[] {
  const findings = new Findings();
  for (const { surprises, acknowledged } of clients) {
    for (const what of surprises) findings.add('I10', 'clients met what no fault explains', what);
    if (acknowledged === 0) findings.add('I10', 'nothing was checked', 'no write was acknowledged');
  }
  for (const node of watchers === null ? [] : nodes) {
    if (watchers?.snapshotsOf(node)) continue;
    findings.add('I10', 'nothing was checked', `no watcher read ${node} while clients wrote`);
  }
  return findings.violations;
}

/** Throws with all there is to know when anything is broken. */
export function assertSound(verdict: Verdict, fleet: Fleet): void {
  if (verdict.violations.length === 0) return;
  throw new Error(`${describe(verdict.violations)}\n${fleet.logs()}`);
}

async function settledStatus(
  fleet: Fleet,
  nodes: readonly NodeName[],
): Promise<{ readonly status: FleetStatus; readonly lag: readonly Violation[] }> {
  const startedMs = Date.now();
  const probe = async () => {
    const all = await fleet.status();
    const status = { ...all, nodes: all.nodes.filter(({ name }) => isOneOf(nodes, name)) };
    const waitedMs = Date.now() - startedMs;
    const lag = judgeLag(status, waitedMs);
    return { status, lag, isLast: waitedMs > lagMaxMs };
  };
  // A lag that stays is a violation like the others, and no error of the check.
  return fleet.until('no lag', probe, {
    ...{ pollMs, reached: ({ lag, isLast }) => lag.length === 0 || isLast },
  });
}

function isOneOf(nodes: readonly NodeName[], name: string): boolean {
  return (nodes as readonly string[]).includes(name);
}

async function knownNodes(
  { fleet, leader, nodes, workloads }: Checked,
  digests: readonly NodeDigests[],
): Promise<readonly KnownNode[]> {
  const [wanted] = digests;
  const [table = ''] = tableNamesOf(workloads);
  const known: KnownNode[] = [];
  for (const name of nodes) {
    const own = digests.find(({ node }) => node === name);
    known.push({
      ...{ name, leads: name === leader, serverRuns: true, agentRuns: !fleet.agent(name).ended },
      writable: await isWritable(fleet, name, table),
      equal: JSON.stringify(own?.tables) === JSON.stringify(wanted?.tables),
    });
  }
  return known;
}

/** An ordinary session tries, read-write on purpose; nothing of it stays. */
async function isWritable(fleet: Fleet, node: NodeName, table: string): Promise<boolean> {
  const session = await fleet.session(node);
  try {
    await session.query('BEGIN READ WRITE');
    await session.query(`DELETE FROM ${session.escapeIdentifier(table)}`);
    return true;
  } catch {
    return false;
  } finally {
    await session.query('ROLLBACK');
    await session.end();
  }
}

async function costsOf({ fleet, leader, nodes }: Checked): Promise<readonly Cost[]> {
  const costs: Cost[] = [];
  for (const node of nodes) {
    const kept = await fleet.sql<{ bytes: string }>(
      node,
      `SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn) AS bytes
       FROM pg_replication_slots WHERE database = current_database()`,
    );
    costs.push({
      node,
      residentBytes: residentBytes(fleet.agent(node).pid) ?? 0,
      keptWalBytes: node === leader ? Number(kept[0]?.bytes ?? 0) : null,
    });
  }
  return costs;
}
