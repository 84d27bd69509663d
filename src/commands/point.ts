/**
 * `understudy point <label>`: makes a named consistency point on the leader and answers when it is
 * in the log. A label flows in, its LSN flows out. A label that exists is refused.
 */
import { UnderstudyError } from '../errors.ts';
import { type Command, requiredText } from './command.ts';
import { parsePointLabel } from './point-reference.ts';

export interface PointInput {
  readonly label: string;
}

export const pointCommand: Command<PointInput> = {
  name: 'point',
  examples: ['understudy point before-migration'],
  declare: (verb) => {
    verb.argument('<label>', '1 to 63 of a-z, 0-9, _ . and -, beginning with a letter');
  },
  read: (args) => ({ label: parsePointLabel(requiredText(args[0], '<label>')) }),
  run: async () => {
    throw new UnderstudyError('BUG', 'not wired yet', 'Please report this.');
  },
};
