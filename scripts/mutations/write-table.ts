/**
 * Writes scripts/mutations/README.md. Flows in: the lists of mutations; flows out: one row for
 * each, with its harm and the tests that have to fail. A unit test compares the page with the
 * lists.
 */
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Mutation } from './mutation.ts';
import { quick } from './quick-list.ts';
import { withServers } from './server-list.ts';

const intro = `# Mutations

<!-- Written by scripts/mutations/write-table.ts from the lists beside it: change it there. -->

\`npm run mutations\` breaks a copy of the tree in the places below, one at a time, and runs the
tests that have to fail then; \`-- --quick\` leaves out those that start servers, \`-- NAME…\` runs
some.
`;

function row({ name, harm, tests }: Mutation): string {
  const seenBy = tests.map((path) => `\`${path.replace(/^test\/|\.test\.ts$/g, '')}\``);
  return `| \`${name}\` | ${harm} | ${seenBy.join(', ')} |`;
}

export function renderMutations(): string {
  const rows = [...quick, ...withServers].map(row);
  const head = ['| mutation | what it would cost | tests that fail |', '| --- | --- | --- |'];
  return `${[intro, ...head, ...rows].join('\n')}\n`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  writeFileSync(new URL('./README.md', import.meta.url), renderMutations());
}
