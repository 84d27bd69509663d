/**
 * `understudy check`: looks whether servers, settings, permissions and tables are as required, and
 * changes nothing. The configuration flows in, findings with their remedies flow out; warnings are
 * no failure.
 */
import { UnderstudyError } from '../errors.ts';
import type { Command } from './command.ts';

export type CheckInput = Readonly<Record<string, never>>;

export const checkCommand: Command<CheckInput> = {
  name: 'check',
  examples: ['understudy check', 'understudy --json check'],
  declare: () => undefined,
  read: () => ({}),
  run: async () => {
    throw new UnderstudyError('BUG', 'not wired yet', 'Please report this.');
  },
};
