/**
 * Understands a command line. The words after `understudy` flow in; a text to print (help or the
 * version), or a verb that is ready to run with the options every verb has, flows out. Only the
 * module of the named verb is imported. What is not understood is a USAGE error with a suggestion.
 */
import { Command, CommanderError, Option } from 'commander';
import { UnderstudyError } from '../errors/understudy-error.ts';
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
P in --at P is a point's label or an LSN such as 3:0/16B3748. The answer goes to stdout, everything
else to stderr. \${VAR} in the configuration is an environment variable.

Examples:
  understudy check                          is everything as required?
  understudy init --leader a                begin
  understudy run a                          serve node a, until stopped
  understudy status --watch                 who leads, who follows how closely
  understudy failover b --dry-run           what would be lost?
  understudy detach b --at before-deploy    a database as it was then

Environment:
  UNDERSTUDY_CONFIG                         the configuration, where --config is not given
  UNDERSTUDY_LOG_LEVEL                      the log level, where --log-level is not given

Exit codes:
  0   ok (check: no errors; warnings are allowed)
  1   what you typed or the file says
  2   cannot connect or authenticate
  3   not the owner, or lost the race
  4   reachable but not as required; nothing was changed
  5   timed out
  6   needs --allow-data-loss
  7   done; data was discarded and saved
  8   verification found a difference
  70  a bug of Understudy`;

const helpHint = 'See `understudy --help`.';

/** The options every verb has; they may stand before or after the verb. */
function withGlobalOptions(program: Command): Command {
  return program
    .option('--config <file>', 'the configuration (default: ./understudy.yaml)')
    .option('--json', 'answer with one JSON object, also on failure')
    .addOption(
      new Option('--log-level <level>', 'what is logged, on stderr (default: info)').choices(
        logLevels,
      ),
    )
    .addOption(
      new Option('--log-format <format>', 'default: human on a terminal, else json').choices(
        logFormats,
      ),
    );
}

/** The first word that is no option and no option's value. */
function verbIn(words: readonly string[]): string | undefined {
  const scan = silent(withGlobalOptions(new Command('understudy')));
  return scan.parseOptions([...words]).operands[0];
}

const nowhere = (): void => undefined;

/** commander writes and exits by itself unless it is told not to; both are the caller's here. */
function silent(program: Command, write: (text: string) => void = nowhere): Command {
  return program
    .exitOverride()
    .configureOutput({ writeOut: write, writeErr: write, outputError: nowhere });
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
    if (chosen.run === null || named === undefined) throw noVerb();
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
      throw new UnderstudyError(
        'NOT_IN_THIS_VERSION',
        `${name} is not part of this version`,
        '`understudy --help` lists the commands of this version.',
      );
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

function noVerb(): UnderstudyError {
  return new UnderstudyError('USAGE', 'no command was given', helpHint);
}

/** commander says `error: what` and, below it, `(Did you mean x?)`. */
function usageError(error: CommanderError, words: readonly string[]): UnderstudyError {
  if (error.code === 'commander.help') return noVerb();
  const [first = '', suggestion = ''] = error.message.split('\n');
  const message = first.replace(/^error: /, '').replace(/\.$/, '');
  const meant = /^\((.*)\)$/.exec(suggestion)?.[1];
  const named = words.find((word) => Object.hasOwn(verbs, word));
  const help = named === undefined ? helpHint : `See \`understudy ${named} --help\`.`;
  return new UnderstudyError('USAGE', message, meant === undefined ? help : `${meant} ${help}`);
}
