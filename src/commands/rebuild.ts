/**
 * `understudy rebuild <node> [--in-place]`: rebuilds a follower from the log. It answers once the
 * rebuild has begun; `understudy status` shows its progress.
 */

import { agentStandIn } from '../agent/stand-in.ts';
import { exitCodes } from '../errors/codes.ts';
import { type RebuildAnswer, rebuild } from '../fleet/operations/rebuild.ts';
import { clusterOf } from './cluster-of.ts';
import { type Command, flagOption, requiredText } from './command.ts';

interface RebuildInput {
  readonly node: string;
  readonly inPlace: boolean;
}

export const rebuildCommand: Command<RebuildInput> = {
  name: 'rebuild',
  examples: ['understudy rebuild b', 'understudy rebuild b --in-place'],
  declare: (verb) => {
    verb.argument('<node>', 'the follower to rebuild');
    verb.option(
      '--in-place',
      'empty its tables and fill them, instead of swapping in a new database',
    );
  },
  read: (args, options) => ({
    node: requiredText(args[0], '<node>'),
    inPlace: flagOption(options, 'inPlace'),
  }),
  run: async (context, { node, inPlace }) => {
    context.config.requireNode(node);
    const { signal } = context;
    const request = { node, way: inPlace ? ('in-place' as const) : null, signal };
    const answer = await rebuild(clusterOf(context), request, agentStandIn, (line) =>
      context.people(line),
    );
    return { answer, lines: linesOf(answer), exit: exitCodes.ok };
  },
};

function linesOf({ node, lsn, database, agentRuns }: RebuildAnswer): string[] {
  const where =
    database === null
      ? 'in its own tables, which are empty until then'
      : `in the database ${database}; readers have the rows of ${lsn ?? 'no position'} until then`;
  return [
    `node ${node} is being rebuilt from the log ${where}`,
    agentRuns ? 'its progress: understudy status' : `start its agent: understudy run ${node}`,
  ];
}
