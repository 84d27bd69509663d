/**
 * `understudy wait <node> --at P [--timeout 30s]`: ends when the node has applied everything up to
 * a point. A node, a label or LSN, and a bound flow in; the position reached flows out.
 */
import { UnderstudyError } from '../errors.ts';
import { type Command, durationOption, requiredText, textOption } from './command.ts';
import { type PointReference, parsePointReference } from './point-reference.ts';

export interface WaitInput {
  readonly node: string;
  readonly at: PointReference;
  readonly timeoutMs: number;
}

export const waitCommand: Command<WaitInput> = {
  name: 'wait',
  examples: [
    'understudy wait b --at before-migration',
    'understudy wait b --at 3:0/16B3748 --timeout 2m',
  ],
  declare: (verb) => {
    verb.argument('<node>', 'who shall have reached it');
    verb.requiredOption('--at <point>', 'a label, epoch:lsn, or an lsn of the current epoch');
    verb.option('--timeout <duration>', 'how long at most, such as 250ms, 30s or 15m', '30s');
  },
  read: (args, options) => ({
    node: requiredText(args[0], '<node>'),
    at: parsePointReference(requiredText(textOption(options, 'at'), '--at')),
    timeoutMs: durationOption(options, 'timeout', '--timeout'),
  }),
  run: async () => {
    throw new UnderstudyError('BUG', 'not wired yet', 'Please report this.');
  },
};
