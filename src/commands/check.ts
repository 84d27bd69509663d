/**
 * `understudy check`: checks servers, settings, permissions and tables, and changes nothing. It
 * answers with findings and their remedies; warnings are no failure.
 */

import { exitOfFindings, type Finding } from '../fleet/preflight/finding.ts';
import { preflight } from '../fleet/preflight/preflight.ts';
import { clusterOf } from './cluster-of.ts';
import type { Command } from './command.ts';

type CheckInput = Readonly<Record<string, never>>;

export const checkCommand: Command<CheckInput> = {
  name: 'check',
  examples: ['understudy check', 'understudy --json check'],
  declare: () => undefined,
  read: () => ({}),
  run: async (context) => {
    const findings = await preflight(clusterOf(context), { leader: null, withTopics: true });
    return { answer: { findings }, lines: findingLines(findings), exit: exitOfFindings(findings) };
  },
};

/** Two lines for each finding, and one that counts them. */
export function findingLines(findings: readonly Finding[]): string[] {
  const lines = findings.flatMap(({ severity, message, hint }) => [
    `${severity}: ${message}`,
    `HINT: ${hint}`,
  ]);
  return [...lines, `${count(findings, 'error')}, ${count(findings, 'warning')}`];
}

function count(findings: readonly Finding[], severity: Finding['severity']): string {
  const number = findings.filter((finding) => finding.severity === severity).length;
  return `${number === 0 ? 'no' : number} ${severity}${number === 1 ? '' : 's'}`;
}
