/**
 * Does what a hint says. It takes a hint as the command line printed it, takes the commands between
 * its backquotes that come from one place of the sources, fills their documented placeholders, and
 * runs them as an operator would: `understudy …` by the built command, SQL and shell commands with
 * psql and pg_dump, kafka-configs.sh by the class that the script starts. A command that fails
 * fails the test; whether its promise has come true is for the test to see.
 *
 * The marker names the place, so that test/unit/hints-executed.test.ts knows what is executed:
 * `followHint(fleet, 'stale', hint)`, or `'judgePermissions: REPLICATION'` for one of its commands.
 */
import { spawn } from 'node:child_process';
import * as assert from 'uvu/assert';
import { javaDependencies } from '../../scripts/sandbox/java-dependencies.ts';
import { cacheDir } from '../../scripts/sandbox/sandbox.ts';
import { type CommandResult, resultOf } from './command.ts';
import type { Answer, Fleet } from './fleet.ts';
import type { FleetAgent } from './fleet-agent.ts';
import type { NodeName } from './fleet-options.ts';
import { commandsIn, hintCommands, isMarked, isPrinted } from './hint-places.ts';

export interface Following {
  /** What `<node>` is. */
  readonly node?: NodeName;
  /** Where SQL runs, and whose URL `<url>` is: the nodes that the text names. */
  readonly on?: readonly NodeName[];
  /** Where it is not the fleet's own. */
  readonly urls?: Readonly<Record<string, string>>;
  /** Other placeholders: `{ change: 'ALTER TABLE …' }`. */
  readonly fill?: Readonly<Record<string, string>>;
  /** Exit codes that the text lets expect; 0 by default. */
  readonly exits?: readonly number[];
}

/** Of the parts of a fleet that a hint needs. */
type HintFleet = Pick<Fleet, 'cli' | 'startAgent' | 'spawnAgent' | 'url' | 'brokers'>;

/** The hint of a finding or an error, the answer of a command that failed, an agent that ended. */
type Printed = string | Answer | FleetAgent;

function hintOf(printed: Printed): string {
  if (typeof printed === 'string') return printed;
  if ('json' in printed) return String(printed.json?.error?.hint);
  const hints = [...printed.log.matchAll(/"hint":\s*("(?:[^"\\]|\\.)*")/g)];
  return JSON.parse(hints.at(-1)?.[1] ?? '""');
}

/** Gives the answers of the `understudy` commands. */
export async function followHint(
  fleet: HintFleet,
  marker: string,
  printedBy: Printed,
  how: Following = {},
): Promise<readonly Answer[]> {
  const hint = hintOf(printedBy);
  const places = hintCommands().filter((command) => isMarked(command, marker));
  assert.ok(places.length > 0, `no place of src has the commands of ${marker}`);
  const printed = commandsIn(hint).filter((one) => {
    const word = marker.split(': ')[1] ?? '';
    return one.includes(word) && places.some((place) => isPrinted(place, one, hint));
  });
  assert.ok(printed.length > 0, `the hint has no command of ${marker}: ${hint}`);
  const answers: Answer[] = [];
  for (const command of printed) answers.push(...(await runPrinted(fleet, command, how)));
  return answers;
}

async function runPrinted(
  fleet: HintFleet,
  command: string,
  how: Following,
): Promise<readonly Answer[]> {
  if (command.startsWith('understudy ')) {
    const words = wordsOf(filled(fleet, command, how)).slice(1);
    return words[0] === 'run' ? await runAgents(fleet, words) : [await answer(fleet, words, how)];
  }
  if (command.startsWith('kafka-configs.sh ')) {
    await kafkaConfigs(wordsOf(filled(fleet, command, how)).slice(1));
    return [];
  }
  const urlOf = (node: NodeName): string => how.urls?.[node] ?? fleet.url(node);
  const isShell = /^(?:PGOPTIONS=|psql |pg_dump )/.test(command);
  for (const node of how.on ?? []) {
    const text = filled(fleet, command, { ...how, on: [node] }, isShell);
    const [program, args] = isShell
      ? ['bash', ['-o', 'pipefail', '-c', text]]
      : ['psql', ['-X', '-q', '-v', 'ON_ERROR_STOP=1', '-c', text, urlOf(node)]];
    await succeeds(command, await ended(program as string, args as string[]));
  }
  assert.ok((how.on ?? []).length > 0, `where does ${command} run?`);
  return [];
}

async function answer(
  fleet: HintFleet,
  words: readonly string[],
  { exits = [0] }: Following,
): Promise<Answer> {
  const result = await fleet.cli(...words);
  const said = `understudy ${words.join(' ')}: ${result.stdout} ${result.stderr}`;
  assert.ok(exits.includes(result.code ?? -1), said);
  return result;
}

/** Agents run on; they have to get into their roles. */
async function runAgents(fleet: HintFleet, words: readonly string[]): Promise<readonly Answer[]> {
  const [, node = '', ...more] = words;
  if (more.includes('--until')) return [await answer(fleet, words, {})];
  const agent = fleet.spawnAgent(node as NodeName, '', more);
  await agent.logged(/"message":"(leading|following)"/);
  return [];
}

/** `quotes` puts URLs in quotes: they hold characters of the shell. */
function filled(
  fleet: HintFleet,
  command: string,
  { node, on = [], fill = {}, urls = {} }: Following,
  quotes = false,
): string {
  const url = (name: string | undefined): string => {
    const text = urls[name ?? ''] ?? fleet.url(name as NodeName);
    return quotes ? `'${text}'` : text;
  };
  return command.replace(/<([a-z]+(?: of [a-z ]+)?)>…?/g, (_, name: string) => {
    const given = fill[name];
    if (given !== undefined) return given;
    if (name === 'node' && node !== undefined) return node;
    if (name === 'brokers') return fleet.brokers.join(',');
    if (name === 'text') return 'a test follows the hint';
    if (name === 'url' || name === 'url of the follower') return url(on[0]);
    const of = /^url of (.)$/.exec(name)?.[1];
    if (of !== undefined) return url(of);
    throw new Error(`the test gives nothing for <${name}> of: ${command}`);
  });
}

/** As a shell splits them: double and single quotes, no variables. */
export function wordsOf(command: string): readonly string[] {
  return [...command.matchAll(/(?:[^\s"']|"[^"]*"|'[^']*')+/g)].map(([word]) => {
    return word.replace(/"([^"]*)"|'([^']*)'/g, (_, double, single) => double ?? single);
  });
}

/** Java takes seconds; the sandbox has the jars of the broker, not the folder of scripts. */
async function kafkaConfigs(args: readonly string[]): Promise<void> {
  const { kafkaJars } = await javaDependencies(cacheDir, () => undefined);
  const java = ['-cp', `${kafkaJars}/*`, 'kafka.admin.ConfigCommand', ...args];
  await succeeds('kafka-configs.sh', await ended('java', java));
}

async function ended(program: string, args: readonly string[]): Promise<CommandResult> {
  return resultOf(spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] }));
}

async function succeeds(command: string, { code, stdout, stderr }: CommandResult): Promise<void> {
  assert.is(code, 0, `${command}: ${stdout} ${stderr}`);
}
