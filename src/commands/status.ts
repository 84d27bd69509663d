/**
 * `understudy status [--watch]`: who leads and how far every node is. It looks in the databases,
 * the topic and the control log, never in agents, so that it works when all of them are down.
 */
import { UnderstudyError } from '../errors.ts';
import { type Command, flagOption } from './command.ts';

export interface StatusInput {
  /** Again and again until stopped. */
  readonly watch: boolean;
}

export const statusCommand: Command<StatusInput> = {
  name: 'status',
  examples: ['understudy status', 'understudy status --watch', 'understudy --json status'],
  declare: (verb) => {
    verb.option('--watch', 'show it again and again; with --json one object a line');
  },
  read: (_args, options) => ({ watch: flagOption(options, 'watch') }),
  run: async () => {
    throw new UnderstudyError('BUG', 'not wired yet', 'Please report this.');
  },
};
