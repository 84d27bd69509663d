/**
 * `understudy destroy [--yes | --stream ID]`: removes what Understudy created: topics, slots,
 * publications and the `understudy` schemas. Tables and their rows stay. Without a confirmation it
 * only reports what it would remove, and which confirmation that needs.
 */

import { exitCodes } from '../errors/codes.ts';
import { type Dismantled, dismantle } from '../fleet/operations/destroy.ts';
import { clusterOf } from './cluster-of.ts';
import { type Command, flagOption, textOption } from './command.ts';

interface DestroyInput {
  readonly yes: boolean;
  readonly stream: string | null;
}

export const destroyCommand: Command<DestroyInput> = {
  name: 'destroy',
  examples: [
    'understudy destroy',
    'understudy destroy --yes',
    'understudy destroy --stream 5f0c1d1e-6a5b-4d6e-9f65-0d7a9c0f3c11',
  ],
  declare: (verb) => {
    verb.option('--yes', 'remove it; without a confirmation, only report what would be removed');
    verb.option(
      '--stream <id>',
      'remove this stream, also where not all of it belongs to understudy.yaml',
    );
  },
  read: (_args, options) => ({
    yes: flagOption(options, 'yes'),
    stream: textOption(options, 'stream'),
  }),
  run: async (context, input) => {
    const answer = await dismantle(clusterOf(context), input);
    return { answer, lines: linesOf(answer), exit: exitCodes.ok };
  },
};

function linesOf(answer: Dismantled): string[] {
  const { cluster, stream, leader, lastPoint, lastCommit, removed } = answer;
  const ofStream =
    stream === null
      ? `cluster ${cluster} has no stream`
      : `stream ${stream} of cluster ${cluster}, led by ${leader ?? 'no node'}, ` +
        `last point ${lastPoint ?? 'unknown'}, last transaction ${lastCommit ?? 'unknown'}`;
  const agents = answer.agents.map((node) => `an agent serves node ${node}: stop it first`);
  const nodes = answer.nodes.map(({ name, slots, databases }) => {
    const kept = slots.join(', ') || 'none';
    const left = databases.map((database) => `, database ${database}`).join('');
    return `node ${name}: schema understudy, publication, write guard, slots: ${kept}${left}`;
  });
  const unreachable = answer.unreachable.map((node) => {
    return `node ${node} cannot be reached: nothing is removed there, and its slot keeps WAL`;
  });
  const topics = answer.topics.map((topic) => `topic ${topic}`);
  return [
    ofStream,
    ...(removed ? [] : agents),
    ...answer.reasons,
    `${removed ? 'removed' : `would remove (with ${confirmationOf(answer)})`}:`,
    ...nodes,
    ...topics,
    ...unreachable,
  ];
}

function confirmationOf({ stream, reasons }: Dismantled): string {
  return reasons.length === 0 ? '--yes' : `--stream ${stream ?? ''}`;
}
