/**
 * `understudy repair-damage --reason <text>`: closes the damage of the topic that is open. Without
 * a reason it shows what is open and changes nothing.
 */
import { hostname, userInfo } from 'node:os';
import { exitCodes } from '../errors/codes.ts';
import { type RepairDamageResult, repairDamage } from '../fleet/operations/repair-damage.ts';
import { clusterOf } from './cluster-of.ts';
import { type Command, reasonOption } from './command.ts';

interface RepairDamageInput {
  readonly reason: string | null;
  readonly resnapshot: boolean;
}

export const repairDamageCommand: Command<RepairDamageInput> = {
  name: 'repair-damage',
  examples: [
    'understudy repair-damage',
    'understudy repair-damage --reason INC-7',
    'understudy repair-damage --reason INC-7 --no-resnapshot',
  ],
  declare: (verb) => {
    verb.option('--reason <text>', 'what damaged the topic; the control log keeps it for ever');
    verb.option('--no-resnapshot', 'where the leader is lost: have no rows published again');
  },
  read: (_args, options) => ({
    reason: reasonOption(options),
    resnapshot: options['resnapshot'] !== false,
  }),
  run: async (context, { reason, resnapshot }) => {
    const answer = await repairDamage(clusterOf(context), { reason, resnapshot, by: whoAsks() });
    return { answer, lines: linesOf(answer), exit: exitCodes.ok };
  },
};

/** A container may run under a user id that has no name. */
function whoAsks(): string {
  const host = hostname();
  try {
    return `${userInfo().username}@${host}`;
  } catch {
    return `${process.getuid?.() ?? 'unknown'}@${host}`;
  }
}

function linesOf({ closed, tables }: RepairDamageResult): string[] {
  if (closed.length === 0) return ['no damage is open'];
  const rows =
    tables === null
      ? 'no rows are published again: once a node leads, run understudy resnapshot --all'
      : `the leader publishes every row of ${tables} tables again: understudy status shows how far`;
  return [...closed.map(({ reason }) => `closed: ${reason}`), rows];
}
