/**
 * Parses a command line: the words after `understudy` become a text to print (help or the version),
 * or a verb that is ready to run with the options that every verb has. Only the module of that verb
 * is imported. Any other command line is a USAGE error with a suggestion.
 */
import { Command, CommanderError, Option } from 'commander';
import type { UnderstudyError } from '../errors/understudy-error.ts';
import { noCommand, unusableCommandLine, verbOfLaterVersion } from '../errors/usage.ts';
import { logFormats, logLevels } from '../logger.ts';
import type { BoundCommand, CommandContext, OptionValues, Outcome } from './command.ts';
import { laterVerbs, verbs } from './registry.ts';

export interface GlobalOptions {
  readonly config: string | undefined;
  readonly json: boolean;
  readonly logLevel: string | undefined;
  readonly logFormat: string | undefined;
}

export type Invocation =
  | { readonly kind: 'text'; readonly text: string }
  | {
      readonly kind: 'verb';
      readonly name: string;
      readonly options: GlobalOptions;
      readonly run: (context: CommandContext) => Promise<Outcome>;
    };

const afterHelp = `
P in --at P is the label of a point, or an LSN such as 3:0/16B3748. The answer goes to stdout,
progress and the log to stderr. \${VAR} in the configuration is an environment variable.

Examples:
  understudy check                          check servers, settings and tables
  understudy init --leader a                create the cluster
  understudy run a                          serve node a until stopped
  understudy status --watch                 show the leader and the lag of the followers
  understudy failover b --dry-run           show what a failover would lose
  understudy detach b --at before-deploy    get a database as of a point

Environment:
  UNDERSTUDY_CONFIG                         the configuration, where --config is not given
  UNDERSTUDY_LOG_LEVEL                      the log level, where --log-level is not given

Exit codes:
  0   ok (check: no errors; warnings are allowed)
  1   the command line or the configuration file is wrong
  2   a server cannot be reached, or it refuses the login
  3   not the owner, or another node claimed the epoch first
  4   the servers answer but are not as required; nothing was changed
  5   timed out
  6   needs --allow-data-loss
  7   ok; transactions were discarded, and saved first
  8   verification found a difference
  70  a bug of Understudy`;

/** The options that every verb has, before or after the verb. */
function withGlobalOptions(program: Command): Command {
  return program
    .option('--config <file>', 'the configuration (default: ./understudy.yaml)')
    .option('--json', 'print the answer as one JSON object, also on failure')
    .addOption(
      new Option('--log-level <level>', 'the level of the log, on stderr (default: info)').choices(
        logLevels,
      ),
    )
    .addOption(
      new Option(
        '--log-format <format>',
        'the format of the log (default: human on a terminal, else json)',
      ).choices(logFormats),
    );
}

/** The first word that is no option and no option's value. */
function verbIn(words: readonly string[]): string | undefined {
  const scan = silent(withGlobalOptions(new Command('understudy')));
  return scan.parseOptions([...words]).operands[0];
}

const discard = (): void => undefined;

/** By default commander writes and exits by itself; here the caller does both. */
function silent(program: Command, write: (text: string) => void = discard): Command {
  return program
    .exitOverride()
    .configureOutput({ writeOut: write, writeErr: write, outputError: discard });
}

export async function readCommandLine(
  words: readonly string[],
  version: string,
): Promise<Invocation> {
  let shown = '';
  const program = silent(withGlobalOptions(new Command('understudy')), (text) => {
    shown += text;
  });
  program
    .description('Keeps a fleet of Postgres databases in step through a Kafka log.')
    .usage('[options] <command>')
    .version(version, '--version', 'print the version')
    .helpOption('-h, --help', 'print this, or `understudy <command> --help` for a command')
    .helpCommand(false)
    .configureHelp({ subcommandTerm: termOf })
    .addHelpText('after', afterHelp);
  try {
    const named = verbIn(words);
    const chosen: { run: ((context: CommandContext) => Promise<Outcome>) | null } = { run: null };
    for (const [name, entry] of Object.entries(verbs)) {
      const verb = program.command(name).description(entry.summary);
      if (name !== named) continue;
      const command = await entry.load();
      declareVerb(verb, command, (run) => {
        chosen.run = run;
      });
    }
    for (const name of laterVerbs) declareLaterVerb(program, name);
    program.parse([...words], { from: 'user' });
    if (chosen.run === null || named === undefined) throw noCommand();
    return { kind: 'verb', name: named, options: globalOptions(program.opts()), run: chosen.run };
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return { kind: 'text', text: shown };
    throw usageError(error, words);
  }
}

function termOf(verb: Command): string {
  return `${verb.name()} ${verbs[verb.name()]?.synopsis ?? ''}`.trimEnd();
}

function declareVerb(
  verb: Command,
  command: BoundCommand,
  choose: (run: (context: CommandContext) => Promise<Outcome>) => void,
): void {
  command.declare(verb);
  const examples = command.examples.map((line) => `  ${line}`).join('\n');
  verb.addHelpText('after', `\nExamples:\n${examples}`);
  verb.action(() => choose(command.prepare(verb.args, verb.opts())));
}

function declareLaterVerb(program: Command, name: string): void {
  program
    .command(name, { hidden: true })
    .argument('[words...]')
    .allowUnknownOption()
    .helpOption(false)
    .action(() => {
      throw verbOfLaterVersion(name);
    });
}

function globalOptions(options: OptionValues): GlobalOptions {
  const text = (value: unknown): string | undefined =>
    typeof value === 'string' ? value : undefined;
  return {
    config: text(options['config']),
    json: options['json'] === true,
    logLevel: text(options['logLevel']),
    logFormat: text(options['logFormat']),
  };
}

/** The message of commander is `error: what` and, on a second line, `(Did you mean x?)`. */
function usageError(error: CommanderError, words: readonly string[]): UnderstudyError {
  if (error.code === 'commander.help') return noCommand();
  const [first = '', suggestion = ''] = error.message.split('\n');
  const message = first.replace(/^error: /, '').replace(/\.$/, '');
  const meant = /^\((.*)\)$/.exec(suggestion)?.[1] ?? '';
  const named = words.find((word) => Object.hasOwn(verbs, word)) ?? null;
  return unusableCommandLine(message, meant, named);
}
