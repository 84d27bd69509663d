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

A place is a comment \`// rule: NAME\` in src, on a line of its own directly above the statement,
declaration, property or case that enforces the rule; half a sentence may follow the name and a
comma where the code does not say why. So code can be changed and moved without a change here, as
long as its marker stays with it.

To add a mutation: mark the statement, with a name that says the rule and that no other marker has.
Add an entry to the list whose files it belongs to: the harm for users, the tests that have to
fail, and an edit with file, rule and what replaces the whole statement, for which \`$&\` stands.
Where only a part of the statement is wrong, \`part\` is the text to replace, which the statement
holds once. Run \`npm run mutations -- NAME\` and \`npm run docs:mutations\`. What is left has to
compile, or a name that is gone would fail the tests instead of the broken rule.

The models strike the same markers, with \`leftOut\` of test/model/left-out.ts. A unit test checks
that every marker is struck by a mutation or a model, and that every rule that is struck is marked.
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
