/**
 * The repair of `verify --repair`: has the leader publish rows that followers have otherwise. It
 * takes the differences that a comparison found and returns how many keys the leader published
 * again, each with its row or, where it has none, with a tombstone. The leader's agent reads them
 * as it reselects partial rows, so concurrent changes are never undone.
 */
import type { RelationId } from '../../change/change.ts';
import { repairTimeout } from '../../errors/timed-out.ts';
import type { UnderstudyError } from '../../errors/understudy-error.ts';
import { Releasers } from '../../lifecycle.ts';
import type { Cluster } from '../cluster.ts';
import { openFleetLog } from '../node/member-session.ts';
import { askAgent } from '../node/requests.ts';
import type { Verification } from './verify.ts';

interface RepairOptions {
  readonly signal: AbortSignal;
  /** Receives each stage as it begins, one line for people. */
  readonly onStage: (line: string) => void;
}

/** Keys of one request: they are small, and a record of the control log has a limit. */
const requestKeysMax = 200;
/** The reads wait for locks, and for transactions that are older than the request. */
const repairTimeoutMs = 120_000;

export async function repairRows(
  cluster: Cluster,
  { leader, nodes }: Verification,
  { signal, onStage }: RepairOptions,
): Promise<number> {
  const releasers = new Releasers();
  try {
    const control = await openFleetLog(cluster, releasers);
    const { around } = cluster;
    const id = around.randomId();
    let published = 0;
    for (const { relationId, table, keys } of differentKeys(nodes)) {
      for (let first = 0; first < keys.length; first += requestKeysMax) {
        const part = keys.slice(first, first + requestKeysMax);
        const args = { relation: relationId, keys: part.map((identity) => [...identity]) };
        onStage(`${table}: node ${leader} publishes ${part.length} rows again`);
        const step = `repair-${published}`;
        const question = { id, step, verb: 'repair', node: leader, args };
        const late = (cause: unknown): UnderstudyError => {
          return repairTimeout(leader, table, repairTimeoutMs, cause);
        };
        await askAgent(control, question, { timeoutMs: repairTimeoutMs, signal, late, around });
        published += part.length;
      }
    }
    return published;
  } finally {
    await releasers.close();
  }
}

interface DifferentKeys {
  readonly relationId: RelationId;
  readonly table: string;
  readonly keys: readonly (readonly string[])[];
}

/** Each key once, however many nodes differ in it. */
function differentKeys(nodes: Verification['nodes']): readonly DifferentKeys[] {
  const tables = new Map<RelationId, { table: string; keys: Map<string, readonly string[]> }>();
  for (const { relationId, table, rowDifferences } of nodes.flatMap((node) => node.tables)) {
    for (const { identity } of rowDifferences?.keys ?? []) {
      const known = tables.get(relationId) ?? { table, keys: new Map() };
      known.keys.set(identity.join('\0'), identity);
      tables.set(relationId, known);
    }
  }
  return Array.from(tables, ([relationId, { table, keys }]) => {
    return { relationId, table, keys: [...keys.values()] };
  });
}
