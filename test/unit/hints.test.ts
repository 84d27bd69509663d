/**
 * Every hint that names `destroy`, with the reason why no smaller remedy works: a cluster that is
 * destroyed loses its stream, and every follower has to be built again. The list is the
 * documentation. A hint that is not in it fails this test: first look for a smaller remedy
 * (`rebuild`, `resnapshot`, a new empty database and `run`, `detach`, `init --replace-rows`).
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

const recordsAreLost =
  'records that only the topic had are lost, so no follower is known to be exact, and a ' +
  'resnapshot does not restore the order of the changes that are missing';
const topicIsAnother =
  'the topic is not the log that this stream was written to: its epochs, ids and offsets are ' +
  'those of another log, and nodes keep positions that mean nothing in it';
const initIncomplete =
  'the next init removes what an init of its databases has left, and is named first; topics that ' +
  'no database of the file knows are another’s until a person says otherwise';
const ofTheStream =
  'it is the answer to a destroy: the bare verb only reports, also which stream that would be';
const noKey =
  'rows of a table without a key cannot be matched with those of followers, so its epoch cannot ' +
  'begin with a resnapshot';

/** By file and function, or class. */
const namesDestroy: Readonly<Record<string, string>> = {
  'errors/belonging.ts needsStreamId': ofTheStream,
  'errors/belonging.ts wrongStreamId': ofTheStream,
  'errors/cluster.ts clusterExists':
    'an init begins a new stream, which cannot share its databases with the one that it meets: ' +
    'running that one is named first',
  'errors/cluster.ts controlLogUnreadable':
    'the bare verb shows what the file leads to, and changes nothing; a newer version, which may ' +
    'read the log, is named first',
  'errors/cluster.ts noCommonPoint': initIncomplete,
  'errors/cluster.ts topicsGone': topicIsAnother,
  'errors/cluster.ts topicsOfNoStream': initIncomplete,
  'errors/node-state.ts leaderNotDetachable':
    'without its leader a cluster continues only after a failover, which keeps the leader’s ' +
    'database out of it: to keep that database, and no other, is to end the cluster',
  'errors/ownership.ts topicPastEpoch': topicIsAnother,
  'errors/table.ts changedWithoutIdentity': noKey,
  'errors/table.ts changesNotSentHint':
    'under another collation two rows of the leader may be one on a follower, which its copy of ' +
    'the table does not show; everything smaller is cured by a resnapshot, which the hint names',
  'errors/table.ts resnapshotWithoutKey':
    'followers cannot match the rows of a table without a key, so reading it again would double ' +
    'them; where a smaller resnapshot does, the hint names it first',
  'errors/topic.ts foreignRecord': recordsAreLost,
  'errors/topic.ts otherSchemaIds':
    'without the schemas no record can be read; restoring the registry is named first',
  'errors/topic.ts otherStream': topicIsAnother,
  'errors/topic.ts partitionMissing': topicIsAnother,
  'errors/topic.ts partitionsChanged': topicIsAnother,
  'errors/topic.ts partitionsDiffer': topicIsAnother,
  'errors/topic.ts topicMissing': topicIsAnother,
  'errors/topic.ts topicRecreated': topicIsAnother,
  'errors/topic.ts unknownControlRecord':
    'the control log decides who leads: after a record that no version reads, its state is unknown',
};

/** Top-level declarations of a file by name, without comments. */
function declarationsOf(text: string): Map<string, string> {
  const code = text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/^\s*\/\/.*$/gm, '');
  const parts = code.split(/^(?=(?:export )?(?:async )?(?:function|const|class) )/m);
  return new Map(
    parts.flatMap((part) => {
      const name = /^(?:export )?(?:async )?(?:function|const|class) (\w+)/.exec(part)?.[1];
      return name === undefined ? [] : [[name, part] as const];
    }),
  );
}

/** `.destroy(` is a call of Node's, not the verb. */
const verb = /(?<!\.)\bdestroy\b/;

const isConstant = (part = ''): boolean => /^(?:export )?const /.test(part);

/** Functions and classes with a text that names the verb, or that use a constant that does. */
function placesOf(file: string, text: string): string[] {
  const declarations = declarationsOf(text);
  const naming = new Set<string>();
  for (let before = -1; before !== naming.size; ) {
    before = naming.size;
    const constants = [...naming].filter((name) => isConstant(declarations.get(name)));
    for (const [name, part] of declarations) {
      const uses = constants.some((other) => new RegExp(`\\b${other}\\b`).test(part));
      if (verb.test(part) || uses) naming.add(name);
    }
  }
  return [...naming]
    .filter((name) => !isConstant(declarations.get(name)))
    .map((name) => `${file} ${name}`);
}

/** The verb itself: its command, its steps, its entry in the list of verbs. */
const ofTheVerb = ['commands/destroy.ts', 'commands/registry.ts', 'fleet/operations/destroy.ts'];

test('every hint that names destroy has a reason why nothing smaller works', () => {
  const files = readdirSync('src', { recursive: true, encoding: 'utf8' });
  const found = files
    .filter((file) => file.endsWith('.ts') && !ofTheVerb.includes(file))
    .flatMap((file) => placesOf(file, readFileSync(join('src', file), 'utf8')));
  assert.equal(found.sort(), Object.keys(namesDestroy).sort());
});

test('a text, a constant and its users are found; a comment and a call are not', () => {
  const text = `
/** Named in a comment: understudy destroy. */
function fine() { socket.destroy(); }
const startOver = 'run understudy destroy';
export function first() { return \`so \${startOver}\`; }
const longer = startOver + '.';
export function second() { return longer; }
`;
  assert.equal(placesOf('x.ts', text), ['x.ts first', 'x.ts second']);
});

test.run();
