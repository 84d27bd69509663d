/**
 * `understudy detach <node> [--at P]`: stops a follower exactly at a point and makes it a database
 * of its own, which takes writes and no longer follows. It answers with the position of its rows.
 * The rest of the cluster continues without the node.
 */

import { agentStandIn } from '../agent/stand-in.ts';
import { exitCodes } from '../errors/codes.ts';
import { detach } from '../fleet/operations/detach.ts';
import type { DetachResult } from '../fleet/operations/detach-steps.ts';
import { leftOutLines } from '../fleet/promotion/answer-bounds.ts';
import { clusterOf } from './cluster-of.ts';
import { type Command, durationOption, requiredText, textOption } from './command.ts';
import { type PointReference, parsePointReference, resolveIn } from './point-reference.ts';

interface DetachInput {
  readonly node: string;
  /** Null is the node's own position. */
  readonly at: PointReference | null;
  /** For the log to hold the point. */
  readonly timeoutMs: number;
}

export const detachCommand: Command<DetachInput> = {
  name: 'detach',
  examples: [
    'understudy detach b --at before-deploy',
    'understudy detach b --at 3:0/16B3748',
    'understudy detach b',
  ],
  declare: (verb) => {
    verb.argument('<node>', 'the follower that becomes a database of its own');
    verb.option(
      '--at <point>',
      'a label, epoch:lsn, or an lsn of the current epoch (default: the position of the node)',
    );
    verb.option('--timeout <duration>', 'how long to wait until the log holds the point', '30s');
  },
  read: (args, options) => {
    const at = textOption(options, 'at');
    return {
      node: requiredText(args[0], '<node>'),
      at: at === null ? null : parsePointReference(at),
      timeoutMs: durationOption(options, 'timeout', '--timeout'),
    };
  },
  run: async (context, { node, at, timeoutMs }) => {
    context.config.requireNode(node);
    const { signal } = context;
    const cluster = clusterOf(context);
    const request = {
      ...{ node, timeoutMs, signal },
      at:
        at === null
          ? null
          : (control: Parameters<typeof resolveIn>[0]) =>
              resolveIn(control, cluster.name, at, timeoutMs, signal),
    };
    const answer = await detach(cluster, request, agentStandIn, (line) => context.people(line));
    return { answer, lines: linesOf(answer), exit: exitCodes.ok };
  },
};

function linesOf(answer: DetachResult): string[] {
  const { node, lsn, steps, sequences, lacks } = answer;
  return [
    `node ${node} is a database of its own, with all that was committed below ${lsn}`,
    ...steps.map(({ step, ms }) => `  ${step.padEnd(12)}${ms} ms`),
    ...sequences.map(({ sequence, from, to }) => `  ${sequence}: ${from ?? 'no value'} -> ${to}`),
    ...lacks.map((part) => `  it lacks ${part}`),
    ...leftOutLines(answer),
  ];
}
