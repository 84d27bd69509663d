/**
 * `understudy wait <node> --at P [--timeout 30s]`: waits until the node has applied everything up
 * to a point, and answers with the position of that point.
 */
import type { Client } from 'pg';
import { formatLsn } from '../change/lsn.ts';
import { type EpochLsn, formatEpochLsn } from '../change/position.ts';
import { exitCodes } from '../errors/codes.ts';
import { rowsNotExact } from '../errors/follower.ts';
import { positionDiscarded } from '../errors/node-state.ts';
import { pointNotReached } from '../errors/timed-out.ts';
import type { UnderstudyError } from '../errors/understudy-error.ts';
import { openMember } from '../fleet/node/member-session.ts';
import { clusterOf } from './cluster-of.ts';
import { type Command, durationOption, requiredText, textOption } from './command.ts';
import { type PointReference, parsePointReference, resolvePoint } from './point-reference.ts';
import { durationText } from './status.ts';

interface WaitInput {
  readonly node: string;
  readonly at: PointReference;
  readonly timeoutMs: number;
}

/** The first polls follow each other closely, since most waits are short. */
const pollFirstMs = 20;
const pollMaxMs = 100;

export const waitCommand: Command<WaitInput> = {
  name: 'wait',
  examples: [
    'understudy wait b --at before-migration',
    'understudy wait b --at 3:0/16B3748 --timeout 2m',
  ],
  declare: (verb) => {
    verb.argument('<node>', 'the node that is to reach the point');
    verb.requiredOption('--at <point>', 'a label, epoch:lsn, or an lsn of the current epoch');
    verb.option(
      '--timeout <duration>',
      'how long to wait at most, such as 250ms, 30s or 15m',
      '30s',
    );
  },
  read: (args, options) => ({
    node: requiredText(args[0], '<node>'),
    at: parsePointReference(requiredText(textOption(options, 'at'), '--at')),
    timeoutMs: durationOption(options, 'timeout', '--timeout'),
  }),
  run: async (context, { node, at, timeoutMs }) => {
    context.config.requireNode(node);
    const deadlineMs = context.now() + timeoutMs;
    const cluster = clusterOf(context);
    const client = await openMember(cluster, context.releasers, node, 'wait');
    const onAbsent = (label: string): void => {
      if (context.json) return;
      context.people(
        `there is no point ${label} yet: waiting for it (understudy points lists those that exist)`,
      );
    };
    const target = await resolvePoint(context, cluster, at, timeoutMs, onAbsent);
    const lsn = formatEpochLsn(target);
    for (let pollMs = pollFirstMs; !(await covers(client, node, target)); ) {
      if (context.now() >= deadlineMs) throw await late(client, node, target, timeoutMs);
      const restMs = Math.max(1, deadlineMs - context.now());
      context.progress(`waiting for node ${node} to reach ${lsn}: ${durationText(restMs)} left`);
      await context.sleep(Math.min(pollMs, restMs), context.signal);
      pollMs = Math.min(pollMs * 2, pollMaxMs);
    }
    const lines = [`node ${node} has reached ${lsn}`];
    return { answer: { node, lsn, reached: true }, lines, exit: exitCodes.ok };
  },
};

const lostPoint = 'UN001';
const notExactYet = 'UN002';

/** The same condition as in understudy.wait_for, which applications call. */
async function covers(client: Client, node: string, { epoch, lsn }: EpochLsn): Promise<boolean> {
  try {
    const { rows } = await client.query<{ covered: string }>(
      'SELECT understudy.covers($1, $2::pg_lsn) AS covered',
      [epoch, formatLsn(lsn)],
    );
    return rows[0]?.covered === 't';
  } catch (error) {
    if (!(error instanceof Error && 'code' in error)) throw error;
    if (error.code === notExactYet) throw rowsNotExact(node, error.message);
    if (error.code !== lostPoint) throw error;
    throw positionDiscarded(node, formatEpochLsn({ epoch, lsn }), error.message, error);
  }
}

async function late(
  client: Client,
  node: string,
  target: EpochLsn,
  timeoutMs: number,
): Promise<UnderstudyError> {
  const { rows } = await client.query<{ at: string | null }>(
    `SELECT CASE WHEN n.role = 'leader' THEN n.epoch || ':' || pg_current_wal_flush_lsn()
            ELSE (SELECT p.epoch || ':' || p.upto FROM understudy.position p) END AS at
     FROM understudy.node n`,
  );
  return pointNotReached(node, rows[0]?.at ?? null, formatEpochLsn(target), timeoutMs);
}
