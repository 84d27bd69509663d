/**
 * `understudy init [--leader a]`: creates the topics and begins the first epoch. It answers with
 * the stream of the new cluster. A cluster that exists is refused.
 */

import { exitCodes } from '../errors/codes.ts';
import { initialise, refuseExisting } from '../fleet/operations/init.ts';
import { refuseErrors } from '../fleet/preflight/finding.ts';
import { preflight } from '../fleet/preflight/preflight.ts';
import { clusterOf } from './cluster-of.ts';
import { type Command, flagOption, textOption } from './command.ts';
import { findingLines } from './findings-text.ts';
import { withSteps } from './long-steps.ts';

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
    verb.option('--leader <node>', 'the first leader (default: the first node of the file)');
    verb.option('--replace-rows', 'replace the rows of followers with those of the leader');
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
    await refuseExisting(cluster);
    const { findings } = await withSteps(context, (onStep) => {
      onStep('checking servers, settings and tables');
      return preflight(cluster, { leader: first, withTopics: false, replaceRows });
    });
    const errors = findings.filter(({ severity }) => severity === 'error');
    // The refusal holds only the first error: with many tables all are worth knowing at once.
    if (errors.length > 1) for (const line of findingLines(errors)) context.people(line);
    refuseErrors(findings);
    const { signal } = context;
    signal.throwIfAborted();
    const answer = await withSteps(context, (onStep) => {
      return initialise(cluster, { leader: first, replaceRows }, onStep, signal);
    });
    const lines = [
      `cluster ${answer.cluster} begins at ${answer.lsn}, led by ${answer.leader}`,
      `${answer.tables.length} tables: ${answer.tables.join(', ') || 'none'}`,
      ...answer.built.map((node) => `node ${node} got the schema of node ${answer.leader}`),
      ...rowLines(answer.unfinished),
      `next: understudy run ${config.nodeNames.join(' ')}`,
    ];
    return { answer, lines, exit: exitCodes.ok };
  },
};

function rowLines(tables: readonly string[]): string[] {
  if (tables.length === 0) return [];
  return [
    `${tables.length} of them are backfilling: the leader’s agent reads ${tables.join(', ')}`,
  ];
}
