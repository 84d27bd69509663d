/**
 * The findings of a preflight for people: those of one kind under one heading with cause and
 * remedy, then the tables it concerns, and a last line with the verdict; and the script of `check
 * --sql`. Takes findings in the order of urgency; gives lines. The script runs as it is: what a
 * person has to decide on is a comment.
 */
import type { Finding, RemedyStatement } from '../fleet/preflight/finding.ts';

/** Enough to recognise the tables meant. */
const namedMax = 10;

/** Two lines for a finding of its own kind, three or more for several of one, and the verdict. */
export function findingLines(findings: readonly Finding[], all = false): string[] {
  return [...groupsOf(findings).flatMap((group) => groupLines(group, all)), verdict(findings)];
}

function verdict(findings: readonly Finding[]): string {
  const errors = count(findings, 'error');
  const word = errors.startsWith('no ') ? 'ready' : 'not ready';
  return `${word}: ${errors}, ${count(findings, 'warning')}`;
}

function count(findings: readonly Finding[], severity: Finding['severity']): string {
  const number = findings.filter((finding) => finding.severity === severity).length;
  return `${number === 0 ? 'no' : number} ${severity}${number === 1 ? '' : 's'}`;
}

type Findings = readonly [Finding, ...Finding[]];

/** In the order of their first findings. */
function groupsOf(findings: readonly Finding[]): Findings[] {
  const groups = new Map<string, [Finding, ...Finding[]]>();
  for (const [at, finding] of findings.entries()) {
    const { severity, code, group } = finding;
    const key = JSON.stringify([severity, code, group?.cause ?? at, group?.remedy ?? '']);
    const known = groups.get(key);
    if (known === undefined) groups.set(key, [finding]);
    else known.push(finding);
  }
  return [...groups.values()];
}

function groupLines(findings: Findings, all: boolean): string[] {
  const [first] = findings;
  const { severity, message, hint, group } = first;
  if (findings.length === 1 || group === null) return [`${severity}: ${message}`, `HINT: ${hint}`];
  const items = findings.flatMap((finding) => finding.group?.item.replace(/[\r\n]+/g, ' ') ?? []);
  return [
    `${severity}: ${items.length} ${group.cause}`,
    ...itemLines(items, all),
    `HINT: ${group.remedy}`,
  ];
}

/** Names share lines; whole sentences have one each. */
function itemLines(items: readonly string[], all: boolean): string[] {
  const shown = all ? items : items.slice(0, namedMax);
  const rest = items.length - shown.length;
  const more = rest > 0 ? [`and ${rest} more (--all)`] : [];
  if (shown.some((item) => item.includes(': ')))
    return [...shown, ...more].map((one) => `  ${one}`);
  return wrapped([
    ...shown.map((item, at) => (at < items.length - 1 ? `${item},` : item)),
    ...more,
  ]);
}

const lineLength = 96;

function wrapped(words: readonly string[]): string[] {
  const lines: string[] = [];
  for (const word of words) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + word.length < lineLength) {
      lines[lines.length - 1] = `${last} ${word}`;
    } else lines.push(`  ${word}`);
  }
  return lines;
}

/**
 * The statements for one node, for psql. A statement that several findings need is there once, at
 * the first of them.
 */
export function remedyScript(
  findings: readonly Finding[],
  node: string,
  others: string[],
): string[] {
  const groups = groupsOf(findings)
    .map((group) => group.filter(({ sql }) => sql.some((one) => one.node === node)))
    .filter((group) => group.length > 0);
  const printed = new Set<string>();
  const without = findings.filter(({ sql }) => sql.length === 0).length;
  return [
    ...comment(`understudy check --sql ${node}: for the database of node ${node}, by psql`),
    ...others.flatMap((other) => comment(`for node ${other}: understudy check --sql ${other}`)),
    ...(without === 0
      ? []
      : comment(`${without} findings need more than statements: understudy check`)),
    '\\set ON_ERROR_STOP on',
    `SET lock_timeout = '10s';`,
    ...groups.flatMap((group) => groupScript(group, node, printed)),
  ];
}

function groupScript(findings: readonly Finding[], node: string, printed: Set<string>): string[] {
  const [first] = findings;
  if (first === undefined) return [];
  const { severity, message, hint, group } = first;
  const [cause, remedy] =
    findings.length === 1 || group === null
      ? [message, hint]
      : [`${findings.length} ${group.cause}`, group.remedy];
  const isTable = group !== null;
  return [
    '',
    ...comment(`${severity}: ${cause}`),
    ...(isTable && findings.length === 1 ? [] : comment(remedy)),
    ...findings.flatMap(({ sql }) => {
      const own = sql.filter((one) => one.node === node && !printed.has(keyOf(one)));
      for (const one of own) printed.add(keyOf(one));
      return own.flatMap(({ statement, caution }) =>
        caution === null ? [statement] : [...comment(caution), ...comment(statement)],
      );
    }),
  ];
}

function keyOf({ statement, caution }: RemedyStatement): string {
  return JSON.stringify([statement, caution === null]);
}

/** A name may hold line ends. */
function comment(text: string): string[] {
  return text.split(/\r\n|\r|\n/).map((line) => `-- ${line}`);
}
