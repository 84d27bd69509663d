/**
 * Judges the nodes of a fleet by what they hold, by what `status` says of them, and by what they
 * cost. Flows in: digests, the answer of `status` beside what is known from elsewhere, lags,
 * memory; flows out: violations. Pure.
 */
import type { FleetStatus } from '../../../src/fleet/status/node-status.ts';
import type { Sight } from '../watchers.ts';
import type { TableDigest } from './read-nodes.ts';
import { Findings, type Violation } from './violation.ts';

export interface NodeDigests {
  readonly node: string;
  readonly tables: readonly TableDigest[];
}

/** The first is what the others are measured by: the leader, at a point that all have reached. */
export function judgeDigests(nodes: readonly NodeDigests[], at: string): readonly Violation[] {
  const findings = new Findings();
  const [leader, ...followers] = nodes;
  for (const { node, tables } of followers) {
    for (const [index, wanted] of (leader?.tables ?? []).entries()) {
      const is = tables[index];
      if (is?.digest === wanted.digest && is.rows === wanted.rows) continue;
      const what =
        `${wanted.table} at ${at}: ${wanted.rows} rows ${wanted.digest} on ${leader?.node}, ` +
        `${is?.rows} rows ${is?.digest} on ${node}`;
      findings.add('I3', 'the nodes hold different rows', what);
    }
  }
  return findings.violations;
}

/** Whoever folds the topic by key finds as many rows as the leader has. */
export function judgeFold(
  liveKeys: ReadonlyMap<string, number>,
  leader: NodeDigests,
): readonly Violation[] {
  const findings = new Findings();
  for (const { table, rows } of leader.tables) {
    const folded = liveKeys.get(`public.${table}`) ?? 0;
    if (folded === rows) continue;
    findings.add(
      'I3',
      'the topic folds to other rows',
      `${table}: ${folded}, ${rows} on the leader`,
    );
  }
  return findings.violations;
}

/** What watchers saw while everything happened, in that order. */
export function judgeSights(sights: readonly Sight[]): readonly Violation[] {
  const findings = new Findings();
  for (const { node, workload, kind, what, atMs } of sights) {
    const seen = `${new Date(atMs).toISOString()} ${node}, ${workload}: ${what}`;
    if (kind === 'back') findings.add('I2', 'a value went back on a node', seen);
    else findings.add('I4', 'a snapshot does not add up', seen);
  }
  return findings.violations;
}

export interface KnownNode {
  readonly name: string;
  readonly leads: boolean;
  readonly serverRuns: boolean;
  readonly agentRuns: boolean;
  /** Whether an ordinary session can write; null when nobody tried. */
  readonly writable: boolean | null;
  /** Whether its rows are the leader's; null when nobody compared. */
  readonly equal: boolean | null;
}

/** `known` was found out without asking Understudy. */
export function judgeStatus(
  status: FleetStatus,
  known: readonly KnownNode[],
): readonly Violation[] {
  const findings = new Findings();
  const lie = (what: string): void => findings.add('I7', 'status says what is not so', what);
  const leader = known.find(({ leads }) => leads)?.name ?? null;
  if (status.leader !== leader) lie(`the leader is ${leader}, not ${status.leader}`);
  for (const node of known) {
    const said = status.nodes.find(({ name }) => name === node.name);
    if (said === undefined) {
      lie(`node ${node.name} is left out`);
      continue;
    }
    const { state, exact, promotable, role } = said;
    const runs = node.serverRuns && node.agentRuns;
    if (!node.serverRuns && state !== 'down') lie(`${node.name} is down, not ${state}`);
    if (node.serverRuns && state === 'down') lie(`${node.name} is up, not down`);
    const goes = state === 'streaming' || state === 'catching-up';
    if (!runs && goes) lie(`${node.name} has no agent that runs, and is ${state}`);
    if (node.serverRuns && (role === 'leader') !== node.leads) lie(`${node.name} is no ${role}`);
    if (node.equal === false && exact === true) lie(`${node.name} is not exact`);
    if (node.equal === false && promotable === true) lie(`${node.name} is not promotable`);
    if (node.writable !== null && node.writable !== node.leads) {
      lie(`${node.name} ${node.leads ? 'leads and refuses' : 'follows and takes'} writes`);
    }
  }
  return findings.violations;
}

/** `status` when everything has been healed for a while. */
export function judgeLag(status: FleetStatus, waitedMs: number): readonly Violation[] {
  const findings = new Findings();
  for (const { name, role, state, lagMs, why } of status.nodes) {
    // A leader always logs a little that is not published yet; much of it is `catching-up`.
    if (state === 'streaming' && (role === 'leader' || lagMs === 0)) continue;
    const what = `${name} is ${state}, ${lagMs} ms behind after ${waitedMs} ms: ${why.join('; ')}`;
    findings.add('I9', 'a node lags although nothing is wrong', what);
  }
  return findings.violations;
}

export interface Cost {
  readonly node: string;
  readonly residentBytes: number;
  /** WAL that the slot keeps; null on a follower. */
  readonly keptWalBytes: number | null;
}

export interface CostLimits {
  readonly residentBytes: number;
  readonly keptWalBytes: number;
}

export function judgeCosts(costs: readonly Cost[], limits: CostLimits): readonly Violation[] {
  const findings = new Findings();
  for (const { node, residentBytes, keptWalBytes } of costs) {
    if (residentBytes > limits.residentBytes) {
      findings.add('I8', 'an agent is too large', `${node} has ${residentBytes} bytes in memory`);
    }
    if (keptWalBytes !== null && keptWalBytes > limits.keptWalBytes) {
      findings.add('I8', 'a slot keeps too much', `${node} keeps ${keptWalBytes} bytes of WAL`);
    }
  }
  return findings.violations;
}
