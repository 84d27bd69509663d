/**
 * `understudy failover <node>`: gives the lead to a node because the leader is gone. A node and the
 * allowance to lose acknowledged writes flow in; the new epoch, and what was lost, flow out. The
 * allowance needs a reason: the control log keeps it.
 */

import { exitCodes } from '../errors/codes.ts';
import { UnderstudyError } from '../errors/understudy-error.ts';
import { type FailoverPlan, failover } from '../fleet/operations/failover.ts';
import type { PromotionResult } from '../fleet/promotion/promotion.ts';
import { clusterOf } from './cluster-of.ts';
import {
  type Command,
  flagOption,
  reasonOption,
  refuseLaterOption,
  requiredText,
} from './command.ts';

interface FailoverInput {
  readonly node: string;
  /** Says what would be done and lost, and changes nothing. */
  readonly dryRun: boolean;
  readonly allowDataLoss: boolean;
  /** Never null when data loss is allowed. */
  readonly reason: string | null;
}

export const failoverCommand: Command<FailoverInput> = {
  name: 'failover',
  examples: [
    'understudy failover b --dry-run',
    'understudy failover b --allow-data-loss --reason "rack 4 burnt down"',
  ],
  declare: (verb) => {
    verb.argument('<node>', 'who shall lead');
    verb.option('--dry-run', 'say what would be done and lost, and change nothing');
    verb.option('--allow-data-loss', 'go on although acknowledged writes may be lost');
    verb.option('--reason <text>', 'why; kept in the control log');
    verb.addOption(verb.createOption('--force-fence', 'of a later version').hideHelp());
  },
  read: (args, options) => {
    refuseLaterOption(options, 'forceFence', '--force-fence');
    const allowDataLoss = flagOption(options, 'allowDataLoss');
    const reason = reasonOption(options);
    if (allowDataLoss && reason === null) {
      throw new UnderstudyError(
        'USAGE',
        '--allow-data-loss needs a reason',
        'Add --reason "…": the control log keeps who gave writes up, and why.',
      );
    }
    const node = requiredText(args[0], '<node>');
    return { node, dryRun: flagOption(options, 'dryRun'), allowDataLoss, reason };
  },
  run: async (context, input) => {
    context.config.requireNode(input.node);
    const cluster = clusterOf(context);
    const answer = await failover(cluster, { ...input, signal: context.signal }, (line) =>
      context.people(line),
    );
    return { answer, lines: linesOf(answer), exit: exitCodes.ok };
  },
};

function linesOf(answer: FailoverPlan | PromotionResult): string[] {
  if ('dryRun' in answer) {
    const { node, epoch, leader, lsn, unfinished, lacks } = answer;
    return [
      `would end the epoch of ${leader ?? 'nobody'} and begin epoch ${epoch} on ${node}, which ` +
        `stands at ${lsn ?? 'no position'}`,
      'nothing was changed; under async what the leader did not publish would be lost',
      ...unfinished.map((table) => `rows of ${table} from before the stream would be lost`),
      ...lacks.map((part) => `it would lead although it lacks ${part}`),
    ];
  }
  const { node, epoch, lsn, base, steps, sequences, lacks } = answer;
  return [
    `node ${node} leads epoch ${epoch} from ${lsn}; it continues ${base ?? 'nothing'}`,
    ...steps.map(({ step, ms }) => `  ${step.padEnd(12)}${ms} ms`),
    ...sequences.map(({ sequence, from, to }) => `  ${sequence}: ${from} -> ${to}`),
    ...lacks.map((part) => `  it lacks ${part}`),
  ];
}
