/**
 * `understudy failover <node>`: promotes a follower because the leader is lost. It answers with the
 * new epoch and its base. Acknowledged writes may be lost: that has to be allowed, with a reason,
 * which the control log keeps.
 */

import { agentStandIn } from '../agent/stand-in.ts';
import { exitCodes } from '../errors/codes.ts';
import { reasonMissing } from '../errors/usage.ts';
import { failover } from '../fleet/operations/failover.ts';
import type { FailoverPlan } from '../fleet/operations/judge-failover.ts';
import type { Unpublished } from '../fleet/operations/unpublished.ts';
import { leftOutLines } from '../fleet/promotion/answer-bounds.ts';
import type { PromotionResult } from '../fleet/promotion/promotion-request.ts';
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
  /** Reports what would be done and lost, and changes nothing. */
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
    verb.argument('<node>', 'the follower to promote');
    verb.option('--dry-run', 'report what would be done and lost, and change nothing');
    verb.option('--allow-data-loss', 'promote although acknowledged writes may be lost');
    verb.option('--reason <text>', 'the reason; the control log keeps it');
    verb.addOption(verb.createOption('--force-fence', 'of a later version').hideHelp());
  },
  read: (args, options) => {
    refuseLaterOption(options, 'forceFence', '--force-fence');
    const allowDataLoss = flagOption(options, 'allowDataLoss');
    const reason = reasonOption(options);
    if (allowDataLoss && reason === null) throw reasonMissing();
    const node = requiredText(args[0], '<node>');
    return { node, dryRun: flagOption(options, 'dryRun'), allowDataLoss, reason };
  },
  run: async (context, input) => {
    context.config.requireNode(input.node);
    const cluster = clusterOf(context);
    const request = { ...input, signal: context.signal };
    const answer = await failover(cluster, request, agentStandIn, (line) => context.people(line));
    return { answer, lines: linesOf(answer), exit: exitCodes.ok };
  },
};

function linesOf(answer: (FailoverPlan & Unpublished) | PromotionResult): string[] {
  if ('dryRun' in answer) {
    const { node, epoch, leader, lsn, unfinished, lacks } = answer;
    return [
      `would end the epoch of ${leader === null ? 'no node' : `node ${leader}`} and begin epoch ` +
        `${epoch} on node ${node}, which is at ${lsn ?? 'no position'}`,
      `nothing was changed; ${lossText(answer)}`,
      ...unfinished.map((table) => `${table} is backfilling: rows not read yet would be lost`),
      ...lacks.map((part) => `it would lead without ${part}`),
    ];
  }
  const { node, epoch, lsn, base, steps, sequences, lacks } = answer;
  return [
    `node ${node} leads epoch ${epoch} from ${lsn}; it continues ${base ?? 'no epoch'}`,
    ...steps.map(({ step, ms }) => `  ${step.padEnd(12)}${ms} ms`),
    ...sequences.map(({ sequence, from, to }) => `  ${sequence}: ${from ?? 'no value'} -> ${to}`),
    ...lacks.map((part) => `  it leads without ${part}`),
    ...leftOutLines(answer),
  ];
}

function lossText({ leader, leaderUp, logLsn, rpo }: FailoverPlan & Unpublished): string {
  const end = logLsn ?? 'no point';
  if (leaderUp === null) return `the log ends at ${end}`;
  if (!leaderUp) {
    return `node ${leader} does not answer: what it committed past ${end} would be lost`;
  }
  const { transactions, bytes } = rpo;
  const counted = transactions === null ? '' : `, ${transactions} transactions of the stream`;
  const behind = bytes === null ? 'an unknown amount' : `${bytes} bytes of WAL${counted}`;
  return `node ${leader} is up; past the end of the log, ${end}, it has ${behind}, to be lost`;
}
