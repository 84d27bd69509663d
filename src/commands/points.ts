/**
 * `understudy points`: lists the named consistency points, the oldest first, with their LSN and
 * time, as the control log has them.
 */
import { UnderstudyError } from '../errors.ts';
import type { Command } from './command.ts';

export type PointsInput = Readonly<Record<string, never>>;

export const pointsCommand: Command<PointsInput> = {
  name: 'points',
  examples: ['understudy points', 'understudy --json points'],
  declare: () => undefined,
  read: () => ({}),
  run: async () => {
    throw new UnderstudyError('BUG', 'not wired yet', 'Please report this.');
  },
};
