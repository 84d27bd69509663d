/**
 * `understudy point <label>`: makes a named consistency point on the leader and answers when it is
 * in the log. A label flows in, its LSN flows out. A label that exists is refused.
 */
import type { Client } from 'pg';
import type { ControlState } from '../control/control-state.ts';
import { exitCodes } from '../errors/codes.ts';
import { hasCode, UnderstudyError } from '../errors/understudy-error.ts';
import { leaderOf, openFleetLog, openMember } from '../fleet/node/member-session.ts';
import { clusterOf } from './cluster-of.ts';
import { type Command, requiredText } from './command.ts';
import { parsePointLabel } from './point-reference.ts';
import { namedPoint } from './points.ts';

interface PointInput {
  readonly label: string;
}

/**
 * A leader that runs publishes within moments; one that has just been restarted, within seconds.
 */
const publishTimeoutMs = 30_000;

export const pointCommand: Command<PointInput> = {
  name: 'point',
  examples: ['understudy point before-migration'],
  declare: (verb) => {
    verb.argument('<label>', '1 to 63 of a-z, 0-9, _ . and -, beginning with a letter');
  },
  read: (args) => ({ label: parsePointLabel(requiredText(args[0], '<label>')) }),
  run: async (context, { label }) => {
    const { releasers, signal } = context;
    const cluster = clusterOf(context);
    const control = await openFleetLog(cluster, releasers);
    const leader = leaderOf(control.state, cluster.name);
    if (control.state.labels.has(label)) throw taken(label);
    const client = await openMember(cluster, releasers, leader.node, 'point');
    await makePoint(client, leader.node, label);
    const named = (state: ControlState): boolean => state.labels.has(label);
    const late = (error: unknown): unknown => notPublished(error, leader.node, label);
    const state = await control.waitFor(named, publishTimeoutMs, signal).catch((error: unknown) => {
      throw late(error);
    });
    const record = state.labels.get(label);
    if (record === undefined) throw new Error('a label that was waited for is there');
    const point = namedPoint(record);
    const lines = [`point ${point.label} at ${point.lsn}`];
    return { answer: point, lines, exit: exitCodes.ok };
  },
};

const uniqueViolation = '23505';
const notInPrerequisiteState = '55000';

/** One statement, hence a transaction of its own: the point stands directly after it. */
async function makePoint(client: Client, node: string, label: string): Promise<void> {
  try {
    await client.query('SELECT understudy.point($1)', [label]);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === uniqueViolation) throw taken(label, error);
    if (code !== notInPrerequisiteState) throw error;
    throw new UnderstudyError(
      'PREREQUISITE',
      `node ${node} has the lead, and its database does not know it yet`,
      `A promotion is not finished: start its agent (understudy run ${node}), then try again.`,
      error,
    );
  }
}

function taken(label: string, cause?: unknown): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `the point ${label} exists already`,
    'Labels are used once: choose another. `understudy points` lists them.',
    cause,
  );
}

function notPublished(error: unknown, node: string, label: string): unknown {
  if (!hasCode(error, 'TIMED_OUT')) return error;
  return new UnderstudyError(
    'TIMED_OUT',
    `the point ${label} is in the WAL of node ${node}, but not in the log yet`,
    `It will be there when the agent of the leader runs: understudy run ${node}`,
    error,
  );
}
