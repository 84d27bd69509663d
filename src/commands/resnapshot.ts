/**
 * `understudy resnapshot <table>… | --all`: requests a resnapshot of tables and waits until it is
 * complete. It answers with the tables and the LSN of the request. When the command ends early the
 * resnapshot continues; `understudy status` shows its progress.
 */

import { agentStandIn } from '../agent/stand-in.ts';
import { exitCodes } from '../errors/codes.ts';
import { tablesOrAll } from '../errors/usage.ts';
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
    verb.option('--new-slot', 'with --all: replace the slot, even a usable one');
    verb.option('--no-wait', 'end once the request is written');
  },
  read: (args, options) => {
    const all = flagOption(options, 'all');
    const newSlot = flagOption(options, 'newSlot');
    if (all === args.length > 0 || (newSlot && !all)) throw tablesOrAll();
    return { patterns: all ? null : args, wait: options['wait'] !== false, newSlot };
  },
  run: async (context, { patterns, wait, newSlot }) => {
    const { signal } = context;
    const onProgress = (line: string): void => context.progress(line);
    const request = { patterns, wait, newSlot, signal, onProgress };
    const answer = await resnapshot(clusterOf(context), request, agentStandIn);
    return { answer, lines: linesOf(answer), exit: exitCodes.ok };
  },
};

function linesOf({ node, epoch, lsn, tables, newEpoch, finished }: ResnapshotResult): string[] {
  const what = tables.length === 1 ? tables[0] : `${tables.length} tables`;
  if (newEpoch) {
    return [
      `epoch ${epoch} begins on node ${node}, with a new slot and a resnapshot of every table`,
      `start its agent: understudy run ${node}`,
    ];
  }
  if (finished) return [`${what}: every row is in the stream again, from ${lsn} on`];
  return [`${what}: requested at ${lsn}; its progress: understudy status`];
}
