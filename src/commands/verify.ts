/**
 * `understudy verify [node…]`: compares nodes with the leader, row by row, at one LSN. Node names
 * flow in, none meaning all followers; what differs flows out, and the exit code says whether
 * anything does.
 */
import { type Verification, verifyFleet } from '../agent/verification.ts';
import { formatEpochLsn } from '../change/position.ts';
import { exitCodes } from '../errors.ts';
import { tableLines } from './answer.ts';
import { clusterOf } from './cluster-of.ts';
import { type Command, type Outcome, refuseLaterOption } from './command.ts';

export interface VerifyInput {
  /** Each once; empty is every follower. */
  readonly nodes: readonly string[];
}

export const verifyCommand: Command<VerifyInput> = {
  name: 'verify',
  examples: ['understudy verify', 'understudy verify b', 'understudy --json verify b c'],
  declare: (verb) => {
    verb.argument('[node...]', 'the followers to compare (default: all)');
    verb.addOption(verb.createOption('--repair', 'of a later version').hideHelp());
  },
  read: (args, options) => {
    refuseLaterOption(options, 'repair', '--repair');
    return { nodes: [...new Set(args)] };
  },
  run: async (context, { nodes }) => {
    for (const node of nodes) context.config.requireNode(node);
    const verification = await verifyFleet(clusterOf(context), {
      nodes,
      signal: context.signal,
      onProgress: (line) => context.people(line),
    });
    return verificationOutcome(verification);
  },
};

/** A difference is an outcome, not a failure: it is told in full, with an exit code of its own. */
export function verificationOutcome({ lsn, equal, nodes }: Verification): Outcome {
  const at = formatEpochLsn(lsn);
  const answer = {
    lsn: at,
    equal,
    nodes: nodes.map((node) => ({
      name: node.name,
      equal: node.equal,
      tables: node.tables.map(({ table, rows, equal: same }) => ({ table, rows, equal: same })),
    })),
  };
  const lines = nodes.flatMap((node) => [
    `node ${node.name} at ${at}: ${node.equal ? 'equal' : 'DIFFERENT'}`,
    ...tableLines(
      ['TABLE', 'ROWS', 'LEADER', 'EQUAL'],
      node.tables.map(({ table, rows, leaderRows, equal: same }) => {
        return [table, rows, leaderRows, same ? 'yes' : 'NO'];
      }),
    ),
    '',
  ]);
  const verdict = nodes.length === 0 ? 'there is no follower to compare' : summaryOf(equal);
  return {
    answer,
    lines: [...lines, verdict],
    exit: equal ? exitCodes.ok : exitCodes.different,
  };
}

function summaryOf(equal: boolean): string {
  return equal ? 'all rows are equal' : 'there are differences';
}
