/**
 * Writes docs/errors.md from the table of errors and the exit codes in src/errors/codes.ts. The
 * page holds nothing that the table does not; a test compares the two.
 */
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type ErrorCode, errorTable, exitCodes } from '../src/errors/codes.ts';

/** No Partial: a new exit code does not compile until it is explained. */
const exitMeanings: Readonly<Record<keyof typeof exitCodes, string>> = {
  ok: 'Success. `check` found no errors; there may be warnings.',
  usage: 'The command line or the configuration file is wrong. Found without a connection.',
  unreachable: 'A server cannot be reached, or it refuses the login.',
  notOwner: 'This node is not the owner, or another node claimed the epoch first.',
  notAsRequired: 'The servers answer but are not as required. Nothing was changed.',
  timedOut: 'An expected event did not happen in time.',
  needsAllowDataLoss: 'The command needs `--allow-data-loss`.',
  dataDiscarded: 'Success. Transactions were discarded; they were saved first.',
  different: 'Verification found a difference.',
  bug: 'An internal rule of Understudy was broken. Please report it.',
};

const intro = `# Errors

<!-- Written by scripts/write-error-docs.ts from src/errors/codes.ts: change it there. -->

Every error is one line of cause and one line \`HINT:\` with the exact remedy, on stderr. With
\`--json\` it is also one object on stdout:
\`{"error": {"code": "…", "message": "…", "hint": "…", "exit": 4}}\`. Codes and exit codes are
never renamed, so scripts may match on them.

Commands in a hint are between backquotes: \`understudy …\`, a shell command with \`psql\`,
\`pg_dump\` or \`kafka-configs.sh\`, or SQL for the node that the text names. Tests execute them as
they are printed; test/unit/hints-executed.test.ts lists those that none executes, with the reason.
In angle brackets is what only you know:

| placeholder | what |
| --- | --- |
| \`<node>\` | the node whose agent or command printed the hint, or the one that you choose |
| \`<url>\`, \`<url of b>\` | the URL of that node in understudy.yaml |
| \`<brokers>\` | \`kafka.brokers\`; where they want a login, add \`--command-config\` |
| \`<table>\`, \`<schema>\`, \`<database>\`, \`<role>\`, \`<name>\` | a name, as the text says |
| \`<schemas>\` | the schemas whose objects a function uses, separated by commas |
| \`<text>\`, \`<password>\`, \`<pid>\` | a reason, a password, the id of a process of Postgres |
| \`<size>\` | a size such as 100GB |
| \`<change>\` | the SQL of your change |

A running agent retries after an error whose row says so, with increasing pauses. It stops at every
other error: a retry cannot succeed before an operator has acted.
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
    row(['code', 'exit', 'retried', 'meaning']),
    row(['---', '---:', '---', '---']),
    ...errors,
    '',
  ].join('\n');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  writeFileSync(new URL('../docs/errors.md', import.meta.url), renderErrorDocs());
}
