/**
 * `understudy failover <node>`: gives the lead to a node because the leader is gone. A node and the
 * allowance to lose acknowledged writes flow in; the new epoch, and what was lost, flow out. The
 * allowance needs a reason: the control log keeps it.
 */
import { UnderstudyError } from '../errors.ts';
import {
  type Command,
  flagOption,
  reasonOption,
  refuseLaterOption,
  requiredText,
} from './command.ts';

export interface FailoverInput {
  readonly node: string;
  /** Says what would be done and lost, and changes nothing. */
  readonly dryRun: boolean;
  readonly allowDataLoss: boolean;
  /** Never null when data loss is allowed. */
  readonly reason: string | null;
}

export const failoverCommand: Command<FailoverInput> = {
  name: 'failover',
  examples: [
    'understudy failover b --dry-run',
    'understudy failover b --allow-data-loss --reason "rack 4 burnt down"',
  ],
  declare: (verb) => {
    verb.argument('<node>', 'who shall lead');
    verb.option('--dry-run', 'say what would be done and lost, and change nothing');
    verb.option('--allow-data-loss', 'go on although acknowledged writes may be lost');
    verb.option('--reason <text>', 'why; kept in the control log');
    verb.addOption(verb.createOption('--force-fence', 'of a later version').hideHelp());
  },
  read: (args, options) => {
    refuseLaterOption(options, 'forceFence', '--force-fence');
    const allowDataLoss = flagOption(options, 'allowDataLoss');
    const reason = reasonOption(options);
    if (allowDataLoss && reason === null) {
      throw new UnderstudyError(
        'USAGE',
        '--allow-data-loss needs a reason',
        'Add --reason "…": the control log keeps who gave writes up, and why.',
      );
    }
    const node = requiredText(args[0], '<node>');
    return { node, dryRun: flagOption(options, 'dryRun'), allowDataLoss, reason };
  },
  run: async () => {
    throw new UnderstudyError('BUG', 'not wired yet', 'Please report this.');
  },
};
