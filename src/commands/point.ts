/**
 * `understudy point <label>`: creates a named consistency point on the leader and answers with its
 * LSN once it is in the log. A label that exists is refused.
 */
import type { Client } from 'pg';
import type { ControlState } from '../control/control-state.ts';
import { bug } from '../errors/bug.ts';
import { exitCodes } from '../errors/codes.ts';
import { promotionUnfinished } from '../errors/node-state.ts';
import { labelTaken, tooManyPoints } from '../errors/prerequisite.ts';
import { pointNotPublished } from '../errors/timed-out.ts';
import { hasCode } from '../errors/understudy-error.ts';
import { leaderOf, openFleetLog, openMember } from '../fleet/node/member-session.ts';
import { requireLeaderAgent } from '../fleet/node/node-lock.ts';
import { clusterOf } from './cluster-of.ts';
import { type Command, requiredText } from './command.ts';
import { parsePointLabel } from './point-reference.ts';
import { namedPoint } from './points.ts';

interface PointInput {
  readonly label: string;
}

/**
 * A running leader publishes within moments; one that has just been restarted, within seconds.
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
    if (control.state.labels.has(label)) throw labelTaken(label);
    const client = await openMember(cluster, releasers, leader.node, 'point');
    const what = 'the point would not be published';
    await requireLeaderAgent({ name: leader.node, client }, what, context.sleep);
    await createPoint(client, leader.node, label);
    const isNamed = (state: ControlState): boolean => state.labels.has(label);
    const named = control.waitFor(isNamed, publishTimeoutMs, signal);
    const state = await named.catch((error: unknown) => {
      throw hasCode(error, 'TIMED_OUT') ? pointNotPublished(leader.node, label, error) : error;
    });
    const record = state.labels.get(label);
    if (record === undefined) throw bug(`the label ${label} is missing after the wait for it`);
    const point = namedPoint(record);
    const lines = [`point ${point.label} at ${point.lsn}`];
    return { answer: point, lines, exit: exitCodes.ok };
  },
};

const uniqueViolation = '23505';
const limitExceeded = '54000';
const notInPrerequisiteState = '55000';

/** One statement, hence a transaction of its own: the point follows directly after it. */
async function createPoint(client: Client, node: string, label: string): Promise<void> {
  try {
    await client.query('SELECT understudy.point($1)', [label]);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === uniqueViolation) throw labelTaken(label, error);
    if (code === limitExceeded) throw tooManyPoints(error);
    if (code !== notInPrerequisiteState) throw error;
    throw promotionUnfinished(node, error);
  }
}
