/**
 * `understudy resnapshot <table>… | --all`: has tables read anew, and stays until that is done.
 * Names or patterns flow in; which tables were read and from which LSN on flows out. Ended early,
 * the reading goes on; how far it is stands in `understudy status`.
 */

import { exitCodes } from '../errors/codes.ts';
import { UnderstudyError } from '../errors/understudy-error.ts';
import { type ResnapshotResult, resnapshot } from '../fleet/operations/resnapshot.ts';
import { clusterOf } from './cluster-of.ts';
import { type Command, flagOption } from './command.ts';

interface ResnapshotInput {
  /** null is all. */
  readonly patterns: readonly string[] | null;
  readonly wait: boolean;
  readonly newSlot: boolean;
}

export const resnapshotCommand: Command<ResnapshotInput> = {
  name: 'resnapshot',
  examples: [
    'understudy resnapshot public.orders',
    "understudy resnapshot 'billing.*' --no-wait",
    'understudy resnapshot --all',
    'understudy resnapshot --all --new-slot',
  ],
  declare: (verb) => {
    verb.argument('[table...]', 'schema.table, or a pattern as in understudy.yaml');
    verb.option('--all', 'every table; also where the slot or the publication was lost');
    verb.option('--new-slot', 'with --all: give the slot up, whatever it looks like');
    verb.option('--no-wait', 'end once it is asked for');
  },
  read: (args, options) => {
    const all = flagOption(options, 'all');
    const newSlot = flagOption(options, 'newSlot');
    if (all === args.length > 0 || (newSlot && !all)) throw eitherOr();
    return { patterns: all ? null : args, wait: options['wait'] !== false, newSlot };
  },
  run: async (context, { patterns, wait, newSlot }) => {
    const { signal } = context;
    const onProgress = (line: string): void => context.progress(line);
    const request = { patterns, wait, newSlot, signal, onProgress };
    const answer = await resnapshot(clusterOf(context), request);
    return { answer, lines: linesOf(answer), exit: exitCodes.ok };
  },
};

function eitherOr(): UnderstudyError {
  return new UnderstudyError(
    'USAGE',
    'name the tables to read anew, or give --all; --new-slot goes with --all',
    'understudy resnapshot public.orders, or understudy resnapshot --all',
  );
}

function linesOf({ node, epoch, lsn, tables, newEpoch, finished }: ResnapshotResult): string[] {
  const what = tables.length === 1 ? tables[0] : `${tables.length} tables`;
  if (newEpoch) {
    return [
      `epoch ${epoch} begins on node ${node}, with a new slot and every row to be read`,
      `start its agent: understudy run ${node}`,
    ];
  }
  if (finished) return [`${what}: every row is in the stream anew, from ${lsn} on`];
  return [`${what}: asked for at ${lsn}; see how far it is: understudy status`];
}
