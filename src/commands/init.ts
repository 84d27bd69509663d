/**
 * `understudy init [--leader a]`: makes the topics and begins the first epoch. The configuration
 * and the leader's name flow in, the new cluster's stream flows out. A cluster that exists is
 * refused.
 */

import { exitCodes } from '../errors/codes.ts';
import { initialise } from '../fleet/operations/init.ts';
import { refuseErrors } from '../fleet/preflight/finding.ts';
import { preflight } from '../fleet/preflight/preflight.ts';
import { findingLines } from './check.ts';
import { clusterOf } from './cluster-of.ts';
import { type Command, flagOption, textOption } from './command.ts';

interface InitInput {
  /** null when it was not named: the first node of the configuration. */
  readonly leader: string | null;
  readonly replaceRows: boolean;
}

export const initCommand: Command<InitInput> = {
  name: 'init',
  examples: [
    'understudy init',
    'understudy init --leader a',
    'understudy init --leader a --replace-rows',
  ],
  declare: (verb) => {
    verb.option('--leader <node>', 'who leads first (default: the first node of the file)');
    verb.option('--replace-rows', 'what followers hold gives way to the leader’s rows');
  },
  read: (_args, options) => ({
    leader: textOption(options, 'leader'),
    replaceRows: flagOption(options, 'replaceRows'),
  }),
  run: async (context, { leader, replaceRows }) => {
    const { config } = context;
    const first = leader ?? config.nodeNames[0] ?? '';
    config.requireNode(first);
    const cluster = clusterOf(context);
    context.people('looking whether everything is as required');
    const findings = await preflight(cluster, { leader: first, withTopics: false, replaceRows });
    const errors = findings.filter(({ severity }) => severity === 'error');
    // The refusal has room for the first; whoever has many tables wants to hear of all at once.
    if (errors.length > 1) for (const line of findingLines(errors)) context.people(line);
    refuseErrors(findings);
    const answer = await initialise(cluster, { leader: first, replaceRows }, (line) =>
      context.people(line),
    );
    const lines = [
      `cluster ${answer.cluster} begins at ${answer.lsn}, led by ${answer.leader}`,
      `${answer.tables.length} tables: ${answer.tables.join(', ') || 'none'}`,
      ...answer.built.map((node) => `node ${node} got its tables from ${answer.leader}`),
      ...rowLines(answer.unfinished),
      `next: understudy run ${config.nodeNames.join(' ')}`,
    ];
    return { answer, lines, exit: exitCodes.ok };
  },
};

function rowLines(tables: readonly string[]): string[] {
  if (tables.length === 0) return [];
  return [
    `${tables.length} of them hold rows, which the leader’s agent reads: ${tables.join(', ')}`,
  ];
}
