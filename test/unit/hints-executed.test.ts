/**
 * Every command that a hint names is executed by a test as it is printed (test/support/hint-runner
 * does it, and the marker of its users is what is looked for here), or is in the list below with
 * the reason why it is not. A new hint that no test follows fails this test, as does a command that
 * is not between backquotes: people could not tell where it ends, and no test would find it.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { readCommandLine } from '../../src/commands/command-line.ts';
import { commandsIn, hintCommands, isMarked, placesOf, unmarked } from '../support/hint-places.ts';
import { wordsOf } from '../support/hint-runner.ts';
import { commandsOfPages } from '../support/pages.ts';

/** They report, and promise nothing else; test/integration runs each of them many times. */
const reports: ReadonlySet<string> = new Set([
  'understudy status',
  'understudy points',
  'understudy check',
  'understudy check --sql',
  'understudy check --find-keys',
  'understudy destroy',
  'understudy verify',
  'understudy --help',
  'understudy … --help',
  'understudy <command> --help',
]);

const rebuildIsExecuted = 'stale and rebuildHint print the same command for the same purpose';
const runIsExecuted =
  'an agent is started by its printed command at holdTimeout and other places; here the wait ' +
  'before the message takes minutes, or a crash at one statement precedes it';
const upgradeIsExecuted = 'node-start.test.ts starts an agent where the schema is older';
const replaceIsExecuted = 'deposed and otherDatabaseHint print the same command and purpose';
const resnapshotIsExecuted = 'serverBehindEpoch, goOn and slotLostHint print the same command';
const failoverIsExecuted =
  'it refuses with the command of needsAllowance, which is executed, unless nothing can be lost';
const anotherCluster = 'it is to be run with the understudy.yaml of another cluster';
const formIsParsed = 'an example of a form: the test below parses it';
const beginIsExecuted = 'startOver and topicsGone print the same command and purpose';
const needsPid =
  'the message names processes, of which a person chooses; the call is that of Postgres';

/** Commands that no test follows at this place, each with the reason. */
const notExecuted: Readonly<Record<string, string>> = {
  'behindRepair: understudy rebuild <node>': rebuildIsExecuted,
  'forked: understudy rebuild <node>': rebuildIsExecuted,
  'offsetMissing: understudy rebuild <node>': rebuildIsExecuted,
  'rowColumnsDiffer: understudy rebuild <node>': rebuildIsExecuted,
  'rowsInDoubt: understudy rebuild …': rebuildIsExecuted,
  'tableMissingHere: understudy rebuild <node>': rebuildIsExecuted,
  'tableNotMatched: understudy rebuild <node>': rebuildIsExecuted,
  'agentBusy: understudy run …': runIsExecuted,
  'agentTimeout: understudy … …': runIsExecuted,
  'chosenToLead: understudy run …': runIsExecuted,
  'followerStopped: understudy run <node>': runIsExecuted,
  'leadsAlready: understudy run …': runIsExecuted,
  'notExactAt: understudy run …': runIsExecuted,
  'pointNotPublished: understudy run …': runIsExecuted,
  'promotionIncomplete: understudy run …': runIsExecuted,
  'promotionUnfinished: understudy run …': runIsExecuted,
  'rebuildCannotStopAt: understudy run …': runIsExecuted,
  'remedyOf: understudy run <node>': runIsExecuted,
  'resnapshotNotBegun: understudy run <node>': runIsExecuted,
  'withoutPosition: understudy run <node>': runIsExecuted,
  'leaderLostDatabase: understudy run … --replace': replaceIsExecuted,
  'newDatabase: understudy run … --replace': replaceIsExecuted,
  'nodeOfOtherStream: understudy run … --replace': replaceIsExecuted,
  'restoredCopy: understudy run … --replace': replaceIsExecuted,
  'watchTriggerMissing: understudy run <node> --replace': replaceIsExecuted,
  'fileElsewhere: understudy run … --replace': replaceIsExecuted,
  'schemaOfOlderAgent: understudy run …': upgradeIsExecuted,
  'schemaOlder: understudy run …': upgradeIsExecuted,
  'leaderServerReplaced: understudy resnapshot --all': resnapshotIsExecuted,
  'newSlotHint: understudy resnapshot --all': resnapshotIsExecuted,
  'recordTooLarge: understudy resnapshot --all --new-slot': resnapshotIsExecuted,
  'slotOlderThanPublication: understudy resnapshot --all --new-slot': resnapshotIsExecuted,
  'valueTooLarge: understudy resnapshot --all --new-slot': resnapshotIsExecuted,
  'leaderLostDatabase: understudy failover <node>': failoverIsExecuted,
  'malformedSchemaRecord: understudy failover <node>': failoverIsExecuted,
  'restoredCopy: understudy failover <node>': failoverIsExecuted,
  'serverBehindEpoch: understudy failover <node>': failoverIsExecuted,
  'serverChanged: understudy failover <node>': failoverIsExecuted,
  'belongsToOtherNode: understudy detach …': anotherCluster,
  'judgeOwner: understudy detach …': anotherCluster,
  'replaceForOneNode: understudy run a --replace': formIsParsed,
  'replyTo: understudy run <node> --http host:port': formIsParsed,
  'tablesOrAll: understudy resnapshot --all': formIsParsed,
  'tablesOrAll: understudy resnapshot public.orders': formIsParsed,
  'unknownTable: understudy resnapshot public.orders': formIsParsed,
  'untilForOneNode: understudy run b --until before-deploy': formIsParsed,
  'followerHoldsRows: understudy init --replace-rows': beginIsExecuted,
  'nodeOfNoCluster: understudy init': beginIsExecuted,
  'noCommonPoint: understudy destroy --yes': beginIsExecuted,
  'noCommonPoint: understudy init': beginIsExecuted,
  'noCommonPoint: understudy init --replace-rows': beginIsExecuted,
  'topicsOfNoStream: understudy destroy --yes': beginIsExecuted,
  'undoAll: understudy init': beginIsExecuted,
  'unknownControlRecord: understudy init': beginIsExecuted,
  'endSessions: SELECT pg_terminate_backend(<pid>)': needsPid,
  'writeGuardTimeout: SELECT pg_terminate_backend(<pid>)': needsPid,
  'repairTimeout: SELECT pid, xact_start, query FROM pg_stat_activity ORDER BY xact_start':
    needsPid,
  'rowsNotPublished: SELECT pid, xact_start, query FROM pg_stat_activity ORDER BY xact_start':
    needsPid,
  'schemaInUse: SELECT pid, query FROM pg_stat_activity': needsPid,
  'alreadyPast: understudy run <node> --until …':
    "run-until.test.ts runs it for a node of the test's own",
  "connectHint: CREATE ROLE … LOGIN PASSWORD '<password>';":
    "the role needs a line in pg_hba.conf too, which the sandbox's servers do not read again",
  'connectHint: GRANT SET ON PARAMETER session_replication_role TO …;':
    'judgePermissions prints the same statement for the same role',
  'databaseInUse: GRANT pg_signal_backend TO <role>':
    "only an agent whose role is no superuser meets it: the sandbox's agents are superusers",
  'databaseMissing: CREATE DATABASE "…";':
    'connectHint prints the same statement for the same cause',
  'detachInterrupted: understudy detach …': 'the command is repeated; detachedAt prints the same',
  'schemaInUse: understudy detach …': 'the command is repeated; detachedAt prints the same',
  'judgeAbsent: understudy detach …': 'detachedAt prints the same command',
  'foreignBeside: DROP DATABASE "…"':
    "requireRoomBeside's kind: a database that another program made",
  'requireRoomBeside: DROP DATABASE …;':
    'a database that another program made, under a name that the test would have to take',
  'requireRoomBeside: ALTER DATABASE … OWNER TO …;':
    'only a role that is no superuser meets it; judgePermissions prints the same statement',
  'requireRoomBeside: ALTER ROLE … CREATEDB;': 'only a role that is no superuser meets it',
  'formerLeaderNotComparable: understudy verify <node>…':
    'verify with the names of nodes is what verify.test.ts runs',
  'snapshotNotReached: understudy wait … --at …':
    'status.test.ts waits for LSNs; here a follower would have to lag for minutes',
  'recordsOfNoStream: kafka-topics.sh --bootstrap-server <brokers> --delete --topic …':
    'the sandbox has the jars of a broker, without the tool kafka-topics.sh',
  'rebuildHint: understudy verify <node> --repair':
    'verify-repair.test.ts runs it; its other way, a rebuild, is followed as printed',
  'rebuildInPlace: understudy rebuild … --in-place':
    'only a cluster with ddl: manual is refused with it; node-start.test.ts types the command',
  'requireCurable: … SET LOGGED;': 'judgeStorage prints the same statement',
  'castFromText: DROP CAST (text AS …);':
    'a person who has created such a cast needs it somewhere: it is not to be dropped unasked',
};

const commands = hintCommands().filter(({ command }) => !reports.has(command));

/** String literals of the tests that follow hints. */
function literalsOfTests(): ReadonlySet<string> {
  const files = readdirSync('test', { recursive: true, encoding: 'utf8' });
  const texts = files
    .filter((file) => file.endsWith('.test.ts') && !file.includes('hints-executed'))
    .map((file) => readFileSync(join('test', file), 'utf8'))
    .filter((text) => text.includes('followHint('));
  return new Set(
    texts.flatMap((text) =>
      [...text.matchAll(/'((?:[^'\\\n]|\\.)*)'/g)].map(([, one = '']) => one),
    ),
  );
}

/** A place with several commands needs a marker for each of them. */
function markersFor(command: (typeof commands)[number], words: ReadonlySet<string>): string[] {
  const ofPlace = new Set(
    commands.filter(({ place }) => place === command.place).map((one) => one.command),
  );
  return [...words].filter((marker) => {
    return isMarked(command, marker) && (ofPlace.size === 1 || marker.includes(': '));
  });
}

test('every command of a hint is executed by a test, or has a reason why not', () => {
  const literals = literalsOfTests();
  const listed = new Set(Object.keys(notExecuted));
  const left = commands.filter((command) => markersFor(command, literals).length === 0);
  const nameOf = ({ place, command }: (typeof commands)[number]): string => `${place}: ${command}`;
  assert.equal(
    left
      .map(nameOf)
      .filter((name) => !listed.has(name))
      .sort(),
    [],
  );
  // And the list has nothing that is executed, or that no hint names any more.
  const names = new Set(left.map(nameOf));
  assert.equal(
    [...listed].filter((name) => !names.has(name)),
    [],
  );
});

/** Folders and files whose texts are shown to people as remedies. */
const shown: readonly string[] = [
  ...['errors/', 'fleet/preflight/', 'fleet/provision/', 'fleet/promotion/', 'fleet/operations/'],
  ...['http/', 'agent/', 'leader/tables/', 'catalog/table.ts', 'fleet/status/retained-wal.ts'],
];
/** Parts of commands, which the place that puts them together marks. */
const parts: ReadonlySet<string> = new Set([
  ...['alterTable'],
  ...['guardBypass', 'refusedHint', 'watchTriggerMissing'],
  // Statements of `check --sql`, and what a group of findings has in common.
  ...['judgeCopy', 'judgeTriggers', 'judgeStorage', 'notInStream'],
  // Statements that an agent runs, and a short reason beside a sequence.
  ...['settingStatements', 'notAllowed'],
]);
const isQuery =
  /^\s*(?:WITH|SELECT|INSERT|UPDATE|DELETE|CREATE|DROP|ALTER|GRANT|SET|COMMENT|LOCK)\b/;

test('commands in hints are between backquotes', () => {
  const files = readdirSync('src', { recursive: true, encoding: 'utf8' });
  const found = files
    .filter((file) => file.endsWith('.ts') && shown.some((one) => file.startsWith(one)))
    .flatMap((file) => {
      const places = placesOf(readFileSync(join('src', file), 'utf8'));
      return places.flatMap(({ name, texts }) => {
        const isHint = (text: string): boolean => !isQuery.test(text) && !text.includes('\n');
        if (parts.has(name)) return [];
        return texts.filter(isHint).flatMap((text) => {
          const start = unmarked(text);
          return start === null ? [] : [`${file} ${name}: ${start}`];
        });
      });
    });
  assert.equal(found, []);
});

/** What a page prints for a node, a point or a table. */
function ofPage(command: string): string {
  return command
    .replace(/\s[>|]\s.*|;\s.*/, '')
    .replace(/\bNODE\b/g, 'b')
    .replace('<token>', '1:0/1');
}

/** What placeholders and what is filled in may be, so that a command line can be parsed. */
function filledIn(command: string): string {
  return command
    .replace('understudy … …', 'understudy detach b')
    .replaceAll('<text>', 'INC-7')
    .replace(/--at …|--until …/, (option) => option.replace('…', '1:0/1'))
    .replace('host:port', '127.0.0.1:8080')
    .replace(/<\w+>…?|…/g, 'b');
}

test('the command line has every understudy command that a hint names', async () => {
  const all = hintCommands().filter(({ command }) => command.startsWith('understudy '));
  assert.ok(all.length > 80);
  for (const { place, command } of all) {
    const words = wordsOf(filledIn(command)).slice(1);
    const parsed = await readCommandLine(words, '1.0.0').catch((error: unknown) => error);
    assert.not.instance(parsed, Error, `${place}: ${command}: ${String(parsed)}`);
  }
});

test('the command line has every understudy command that a page names', async () => {
  const all = commandsOfPages(/^understudy (?![[…])/);
  assert.ok(all.length > 60, String(all.length));
  for (const { page, command } of all) {
    const words = wordsOf(filledIn(ofPage(command))).slice(1);
    const parsed = await readCommandLine(words, '1.0.0').catch((error: unknown) => error);
    assert.not.instance(parsed, Error, `${page}: ${command}: ${String(parsed)}`);
  }
});

test('a command, its text and its place are found', () => {
  const source = `
/** In a comment: understudy run a. */
const pattern = /it's \`not\` a "string"/;
export function first(node: string) {
  return 'Start it: \`understudy ' + \`run \${node}\\\`, or \${node === 'a' ? 'x' : "y"}\`;
}
const second = 'See understudy status; or ALTER TABLE t ADD x int';
`;
  const places = placesOf(source);
  assert.equal(
    places.map(({ name }) => name),
    ['pattern', 'first', 'second'],
  );
  assert.equal(places[1]?.texts.flatMap(commandsIn), ['understudy run …']);
  assert.is(unmarked(places[2]?.texts[0] ?? ''), 'understudy status');
  assert.is(unmarked('run `understudy status`, `ALTER TABLE t` it'), null);
  assert.is(unmarked('then SELECT pg_reload_conf()'), 'SELECT pg_');
  assert.equal(wordsOf(`a --x "b c" 'd e'f`), ['a', '--x', 'b c', 'd ef']);
});

test.run();
