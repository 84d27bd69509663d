/**
 * `understudy destroy [--yes]`: removes what Understudy created: topics, slots, publications and
 * the `understudy` schemas. Tables and their rows stay. Without --yes it only reports what it would
 * remove.
 */

import { exitCodes } from '../errors/codes.ts';
import { dismantle } from '../fleet/operations/destroy.ts';
import { clusterOf } from './cluster-of.ts';
import { type Command, flagOption } from './command.ts';

interface DestroyInput {
  readonly yes: boolean;
}

export const destroyCommand: Command<DestroyInput> = {
  name: 'destroy',
  examples: ['understudy destroy', 'understudy destroy --yes'],
  declare: (verb) => {
    verb.option('--yes', 'remove it; without --yes, only report what would be removed');
  },
  read: (_args, options) => ({ yes: flagOption(options, 'yes') }),
  run: async (context, { yes }) => {
    const answer = await dismantle(clusterOf(context), yes);
    const nodes = answer.nodes.map(({ name, slots, databases }) => {
      const kept = slots.join(', ') || 'none';
      const left = databases.map((database) => `, database ${database}`).join('');
      return `node ${name}: schema understudy, publication, write guard, slots: ${kept}${left}`;
    });
    const unreachable = answer.unreachable.map((name) => {
      return `node ${name} cannot be reached: nothing is removed there, and its slot keeps WAL`;
    });
    const verb = yes ? 'removed' : 'would remove (with --yes)';
    const topics = answer.topics.map((topic) => `topic ${topic}`);
    const lines = [`${verb}:`, ...nodes, ...topics, ...unreachable];
    return { answer, lines, exit: exitCodes.ok };
  },
};
