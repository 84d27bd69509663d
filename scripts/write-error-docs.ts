/**
 * Writes docs/errors.md. Flows in: the table of errors and the exit codes of
 * src/errors/codes.ts. Flows out: the page. It promises that the page says nothing the
 * table does not; a test compares them.
 */
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type ErrorCode, errorTable, exitCodes } from '../src/errors/codes.ts';

/** No Partial: a new exit code does not compile until it is explained. */
const exitMeanings: Readonly<Record<keyof typeof exitCodes, string>> = {
  ok: 'Done. `check` found no errors; it may have warned.',
  usage: 'What you typed or what the file says is wrong. Known without a connection.',
  unreachable: 'A server cannot be connected to, or refuses the login.',
  notOwner: 'This node is not the owner, or it lost the race.',
  notAsRequired: 'The servers answer but are not as required. Nothing was changed.',
  timedOut: 'What was waited for did not happen in time.',
  needsAllowDataLoss: 'Goes on only with `--allow-data-loss`.',
  dataDiscarded: 'Done. Data was discarded, and saved beforehand.',
  different: 'Verification found a difference.',
  bug: 'Understudy broke one of its own rules. Please report it.',
};

const intro = `# Errors

<!-- Written by scripts/write-error-docs.ts from src/errors/codes.ts: change it there. -->

Every refusal is one line of cause and one line \`HINT:\` with the exact remedy, on stderr. With
\`--json\` the same stands on stdout as
\`{"error": {"code": "…", "message": "…", "hint": "…", "exit": 4}}\`. Codes and exit codes are
never renamed, so scripts may match on them.

An agent that runs tries again by itself, with growing pauses, after an error whose row says so. It
stops at every other one, because trying again cannot help until somebody has acted.
`;

function row(cells: readonly string[]): string {
  return `| ${cells.join(' | ')} |`;
}

export function renderErrorDocs(): string {
  const exits = Object.entries(exitCodes).map(([name, exit]) =>
    row([String(exit), exitMeanings[name as keyof typeof exitCodes]]),
  );
  const codes = Object.keys(errorTable) as ErrorCode[];
  const errors = codes.map((code) => {
    const { exit, retry, meaning } = errorTable[code];
    return row([`\`${code}\``, String(exit), retry ? 'yes' : 'no', meaning]);
  });
  return [
    intro,
    '## Exit codes\n',
    row(['exit', 'meaning']),
    row(['---:', '---']),
    ...exits,
    '\n## Error codes\n',
    row(['code', 'exit', 'tried again', 'meaning']),
    row(['---', '---:', '---', '---']),
    ...errors,
    '',
  ].join('\n');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  writeFileSync(new URL('../docs/errors.md', import.meta.url), renderErrorDocs());
}
