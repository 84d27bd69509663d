/**
 * Has the leader publish rows that followers do not have as it has them. Flows in: what a
 * comparison found; flows out: how many keys the leader published anew, each with its row or, where
 * it has none, with a tombstone. The leader's agent reads them as it reads rows that the topic
 * lacks values of, so that nothing that is written meanwhile is undone.
 */
import type { RelationId } from '../../change/change.ts';
import { UnderstudyError } from '../../errors/understudy-error.ts';
import { Releasers } from '../../lifecycle.ts';
import type { Cluster } from '../cluster.ts';
import { askAgent } from '../node/agent-question.ts';
import { openFleetLog } from '../node/member-session.ts';
import type { Verification } from './verify.ts';

interface RepairOptions {
  readonly signal: AbortSignal;
  /** What begins, one line for people. */
  readonly onStage: (line: string) => void;
}

/** What one request carries: keys are small, a record of the control log has its limit. */
const requestKeysMax = 200;
/** Reads wait for locks, and for transactions that are older than the request. */
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
        onStage(`${table}: node ${leader} publishes ${part.length} rows anew`);
        const step = `repair-${published}`;
        const question = { id, step, verb: 'repair', node: leader, args };
        const late = (cause: unknown): UnderstudyError => notRepaired(leader, table, cause);
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

/** Each key once, whichever nodes differ in it. */
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

function notRepaired(leader: string, table: string, cause: unknown): UnderstudyError {
  return new UnderstudyError(
    'TIMED_OUT',
    `node ${leader} did not publish rows of ${table} within ${repairTimeoutMs} ms`,
    `See whether its agent leads (understudy status) and what holds it up there: SELECT pid, ` +
      'xact_start, query FROM pg_stat_activity ORDER BY xact_start; then repair again.',
    cause,
  );
}
