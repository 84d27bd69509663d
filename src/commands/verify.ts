/**
 * `understudy verify [node…]`: compares nodes with the leader, row by row, at one LSN. Node names
 * flow in, none meaning all followers; which rows differ flows out, and the exit code says whether
 * any does. Keys are told, values only when asked for: they may be secret.
 */
import { type Verification, verifyFleet } from '../agent/verification.ts';
import { formatEpochLsn } from '../change/position.ts';
import { exitCodes, UnderstudyError } from '../errors.ts';
import type { DifferentRow, TableComparison } from '../verify/compare.ts';
import { clusterOf } from './cluster-of.ts';
import {
  type Command,
  flagOption,
  type OptionValues,
  type Outcome,
  refuseLaterOption,
  requiredText,
  textOption,
} from './command.ts';
import { progressText, verificationLines } from './verify-text.ts';

export interface VerifyInput {
  /** Each once; empty is every follower. */
  readonly nodes: readonly string[];
  readonly keysMax: number;
  readonly showRows: boolean;
}

/** More is no reading matter any more, and has to fit into memory with its rows. */
const keysLimit = 10_000;

export const verifyCommand: Command<VerifyInput> = {
  name: 'verify',
  examples: [
    'understudy verify',
    'understudy verify b --show-rows',
    'understudy --json verify b c --keys 1000',
  ],
  declare: (verb) => {
    verb.argument('[node...]', 'the followers to compare (default: all)');
    verb.option(
      '--keys <count>',
      'keys to show of each table that differs; 0 looks for none',
      '100',
    );
    verb.option('--show-rows', 'show both rows of each key: values may be secret');
    verb.addOption(verb.createOption('--repair', 'of a later version').hideHelp());
  },
  read: (args, options) => {
    refuseLaterOption(options, 'repair', '--repair');
    const [keysMax, showRows] = [keysOption(options), flagOption(options, 'showRows')];
    return { nodes: [...new Set(args)], keysMax, showRows };
  },
  run: async (context, { nodes, ...wanted }) => {
    for (const node of nodes) context.config.requireNode(node);
    const verification = await verifyFleet(clusterOf(context), {
      ...{ nodes, ...wanted },
      signal: context.signal,
      onStage: (line) => {
        if (!context.json) context.people(line);
      },
      onProgress: (state) => context.progress(progressText(state)),
    });
    return verificationOutcome(verification, wanted);
  },
};

function keysOption(options: OptionValues): number {
  const text = requiredText(textOption(options, 'keys'), '--keys');
  const count = /^\d{1,6}$/.test(text) ? Number(text) : keysLimit + 1;
  if (count <= keysLimit) return count;
  throw new UnderstudyError(
    'USAGE',
    `--keys ${JSON.stringify(text)} is not a number from 0 to ${keysLimit}`,
    'Say how many keys of each table shall be shown, such as --keys 1000.',
  );
}

/** A difference is an outcome, not a failure: it is told in full, with an exit code of its own. */
export function verificationOutcome(
  verification: Verification,
  { showRows }: Pick<VerifyInput, 'showRows'>,
): Outcome {
  const { lsn, equal, nodes } = verification;
  const answer = {
    lsn: formatEpochLsn(lsn),
    equal,
    nodes: nodes.map((node) => ({
      ...{ name: node.name, equal: node.equal },
      tables: node.tables.map((table) => tableAnswer(table, showRows)),
    })),
  };
  return {
    answer,
    lines: verificationLines(verification, showRows),
    exit: equal ? exitCodes.ok : exitCodes.different,
  };
}

function tableAnswer(comparison: TableComparison, showRows: boolean): object {
  const { table, rows, leaderRows, difference, rowDifferences } = comparison;
  if (difference === null) return { table, rows, equal: true };
  const different = { table, rows, leaderRows, equal: false, difference };
  if (rowDifferences === null) return different;
  const { rows: count, exact, kinds, keys } = rowDifferences;
  const differing = { rows: count, exact, ...kinds };
  return { ...different, differing, keys: keys.map((key) => keyAnswer(key, showRows)) };
}

function keyAnswer({ kind, key, leader, follower }: DifferentRow, showRows: boolean): object {
  return showRows ? { kind, key, leader, follower } : { kind, key };
}
