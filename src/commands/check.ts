/**
 * `understudy check`: checks servers, settings, permissions and tables, and changes nothing. It
 * answers with findings and their remedies, for people in groups, for programs one by one; or, with
 * --sql, with the script that remedies them on one node. Warnings are no failure.
 */
import { exitCodes } from '../errors/codes.ts';
import { unmetRequirement } from '../errors/prerequisite.ts';
import { exitOfFindings, type Finding } from '../fleet/preflight/finding.ts';
import { preflight } from '../fleet/preflight/preflight.ts';
import { clusterOf } from './cluster-of.ts';
import { type Command, type CommandContext, flagOption, type Outcome } from './command.ts';
import { findingLines, remedyScript } from './findings-text.ts';

interface CheckInput {
  readonly all: boolean;
  readonly findKeys: boolean;
  /** The node to write the script for; true is the leader, false is no script. */
  readonly sql: string | boolean;
}

export const checkCommand: Command<CheckInput> = {
  name: 'check',
  examples: [
    'understudy check',
    'understudy check --all',
    'understudy check --sql',
    'understudy check --sql b --find-keys',
    'understudy --json check',
  ],
  declare: (verb) => {
    verb.option('--all', 'name every table of a finding');
    verb.option('--sql [node]', 'write the statements that remedy, for the leader or a node');
    verb.option('--find-keys', 'search the rows of tables without a key for unique columns');
  },
  read: (_args, options) => ({
    all: flagOption(options, 'all'),
    findKeys: flagOption(options, 'findKeys'),
    sql: typeof options['sql'] === 'string' ? options['sql'] : options['sql'] === true,
  }),
  run: async (context, { all, findKeys, sql }) => {
    if (typeof sql === 'string') context.config.requireNode(sql);
    const options = { leader: null, withTopics: true, findKeys };
    const { findings, leader } = await preflight(clusterOf(context), options);
    if (sql !== false) return script(context, findings, sql === true ? leader : sql);
    const lines = findingLines(findings, all);
    return { answer: { findings: findings.map(plain) }, lines, exit: exitOfFindings(findings) };
  },
};

/** Without what only groups them. */
function plain({ severity, code, object, message, hint, sql }: Finding): object {
  return { severity, code, object, message, hint, sql };
}

/** What could not be reached would be missing in it. */
function script(
  { config, people }: CommandContext,
  findings: readonly Finding[],
  node: string,
): Outcome {
  for (const finding of findings) {
    const isAway = exitOfFindings([finding]) === exitCodes.unreachable;
    if (isAway && finding.severity === 'error' && finding.object === `node ${node}`) {
      throw unmetRequirement(finding);
    }
  }
  const others = config.nodeNames.filter((name) => name !== node);
  const lines = remedyScript(findings, node, others);
  people(findingLines(findings).at(-1) ?? '');
  return { answer: { node, sql: `${lines.join('\n')}\n` }, lines, exit: exitCodes.ok };
}
