/**
 * `understudy verify [node…]`: compares nodes, by default all followers, with the leader, row by
 * row, at one LSN. It answers with the rows that differ; the exit code shows whether any does. Keys
 * are reported, values only on request: they may be secret. With --repair the leader publishes the
 * rows that differ again, and the answer is the comparison after that.
 */

import { formatEpochLsn } from '../change/position.ts';
import { exitCodes } from '../errors/codes.ts';
import { invalidKeyCount } from '../errors/usage.ts';
import { repairRows } from '../fleet/operations/repair.ts';
import { type Verification, verifyFleet } from '../fleet/operations/verify.ts';
import type { DifferentRow, TableComparison } from '../verify/compare.ts';
import type { ProgressState } from '../verify/progress.ts';
import { clusterOf } from './cluster-of.ts';
import {
  type Command,
  flagOption,
  type OptionValues,
  type Outcome,
  requiredText,
  textOption,
} from './command.ts';
import { progressText, type ShownParts, verificationLines } from './verify-text.ts';

interface VerifyInput {
  /** Each once; empty is every follower. */
  readonly nodes: readonly string[];
  readonly keysMax: number;
  readonly showRows: boolean;
  readonly repair: boolean;
  /** Whether equal tables are listed too. */
  readonly all: boolean;
}

/** More cannot be read by people, and has to fit into memory with its rows. */
const keysLimit = 10_000;

export const verifyCommand: Command<VerifyInput> = {
  name: 'verify',
  examples: [
    'understudy verify',
    'understudy verify b --show-rows',
    'understudy verify --repair',
    'understudy --json verify b c --keys 1000',
  ],
  declare: (verb) => {
    verb.argument('[node...]', 'the followers to compare (default: all)');
    verb.option(
      '--keys <count>',
      'keys to show of each table that differs; 0 searches for none',
      '100',
    );
    verb.option('--all', 'list equal tables too; --json always has them');
    verb.option('--show-rows', 'show both rows of each key: values may be secret');
    verb.option(
      '--repair',
      'have the leader publish the rows that differ again, then compare again',
    );
  },
  read: (args, options) => {
    const [keysMax, showRows] = [keysOption(options), flagOption(options, 'showRows')];
    const [repair, all] = [flagOption(options, 'repair'), flagOption(options, 'all')];
    return { nodes: [...new Set(args)], keysMax, showRows, repair, all };
  },
  run: async (context, { nodes, repair, all, ...wanted }) => {
    for (const node of nodes) context.config.requireNode(node);
    const cluster = clusterOf(context);
    const onStage = (line: string): void => {
      if (!context.json) context.people(line);
    };
    const { signal } = context;
    const onProgress = (state: ProgressState): void => context.progress(progressText(state));
    const compare = (keysMax: number): Promise<Verification> => {
      return verifyFleet(cluster, { nodes, ...wanted, keysMax, signal, onStage, onProgress });
    };
    const shown = { ...wanted, all };
    if (!repair) return verificationOutcome(await compare(wanted.keysMax), shown);
    const { verification, repaired } = await repairUntilEqual(
      () => compare(keysLimit),
      (found) => {
        return repairRows(cluster, found, { signal, onStage });
      },
    );
    return verificationOutcome(verification, shown, repaired);
  },
};

/**
 * A comparison reports a bounded number of keys, and rows that differ only in the spelling of their
 * keys need two rounds: repairs continue for as long as fewer rows differ each time.
 */
async function repairUntilEqual(
  compare: () => Promise<Verification>,
  publish: (found: Verification) => Promise<number>,
): Promise<{ readonly verification: Verification; readonly repaired: number }> {
  let repaired = 0;
  for (let before = Number.POSITIVE_INFINITY; ; ) {
    const verification = await compare();
    const different = differentRows(verification);
    if (verification.equal || different >= before) return { verification, repaired };
    before = different;
    const published = await publish(verification);
    if (published === 0) return { verification, repaired };
    repaired += published;
  }
}

function differentRows({ nodes }: Verification): number {
  const tables = nodes.flatMap((node) => node.tables);
  return tables.reduce((sum, table) => sum + Number(table.rowDifferences?.rows ?? 0), 0);
}

function keysOption(options: OptionValues): number {
  const text = requiredText(textOption(options, 'keys'), '--keys');
  const count = /^\d{1,6}$/.test(text) ? Number(text) : keysLimit + 1;
  if (count <= keysLimit) return count;
  throw invalidKeyCount(text, keysLimit);
}

/** A difference is an answer, not a failure: it is complete, with an exit code of its own. */
export function verificationOutcome(
  verification: Verification,
  shown: ShownParts,
  repaired: number | null = null,
): Outcome {
  const { lsn, equal, nodes, leftOut, notCompared } = verification;
  const answer = {
    lsn: formatEpochLsn(lsn),
    equal,
    ...(repaired === null ? {} : { repaired }),
    ...(leftOut.length === 0 ? {} : { leftOut }),
    ...(notCompared.length === 0 ? {} : { notCompared }),
    nodes: nodes.map((node) => ({
      ...{ name: node.name, equal: node.equal },
      tables: node.tables.map((table) => tableAnswer(table, shown.showRows)),
    })),
  };
  return {
    answer,
    lines: verificationLines(verification, shown, repaired),
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
