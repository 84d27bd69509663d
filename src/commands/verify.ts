/**
 * `understudy verify [node…]`: compares nodes with the leader, row by row, at one LSN. Node names
 * flow in, none meaning all followers; what differs flows out, and the exit code says whether
 * anything does.
 */
import { UnderstudyError } from '../errors.ts';
import { type Command, refuseLaterOption } from './command.ts';

export interface VerifyInput {
  /** Each once; empty is every follower. */
  readonly nodes: readonly string[];
}

export const verifyCommand: Command<VerifyInput> = {
  name: 'verify',
  examples: ['understudy verify', 'understudy verify b', 'understudy --json verify b c'],
  declare: (verb) => {
    verb.argument('[node...]', 'the followers to compare (default: all)');
    verb.addOption(verb.createOption('--repair', 'of a later version').hideHelp());
  },
  read: (args, options) => {
    refuseLaterOption(options, 'repair', '--repair');
    return { nodes: [...new Set(args)] };
  },
  run: async () => {
    throw new UnderstudyError('BUG', 'not wired yet', 'Please report this.');
  },
};
