/**
 * How a verb plugs into the command line. Each verb is one file that exports a Command: it declares
 * its arguments and options, turns them into its own input, and runs. The context flows in; an
 * outcome flows out: the answer for programs, the same for people, and the exit code. A verb prints
 * nothing by itself and never ends the process.
 */
import type { Command as Declaration } from 'commander';
import { parseDurationMs } from '../change/amounts.ts';
import type { Config } from '../config/config.ts';
import type { ExitCode } from '../errors/codes.ts';
import { UnderstudyError } from '../errors/understudy-error.ts';
import type { Releasers } from '../lifecycle.ts';
import type { Logger } from '../logger.ts';
import type { Sleep } from '../waiting.ts';

export interface Outcome {
  /**
   * The object that --json prints. LSNs are text, what is unknown is null; bigints become numbers.
   * null prints nothing: a verb that printed as it went has said all.
   */
  readonly answer: object | null;
  /** The same for people, on stdout. */
  readonly lines: readonly string[];
  readonly exit: ExitCode;
}

export interface CommandContext {
  /** Read and checked; what holds secrets is expanded when it is asked for. */
  readonly config: Config;
  readonly json: boolean;
  readonly log: Logger;
  /** Aborted by SIGTERM, SIGINT, or when nobody reads stdout any more: drain and return. */
  readonly signal: AbortSignal;
  /** Closed after the verb, the last opened first. */
  readonly releasers: Releasers;
  readonly now: () => number;
  readonly random: () => number;
  readonly sleep: Sleep;
  /** One line for people, on stderr: progress and notes that are no part of the answer. */
  people(line: string): void;
  /** How far it is, on stderr: in place on a terminal, else every few seconds; not with --json. */
  progress(line: string): void;
  /** An answer before the last one, for verbs that go on: one JSON object a line with --json. */
  print(answer: object, lines: readonly string[]): void;
}

export type OptionValues = Readonly<Record<string, unknown>>;

export interface Command<Input> {
  readonly name: string;
  /** Whole command lines, shown below the verb's help. */
  readonly examples: readonly string[];
  /** Adds arguments and options. Those that every verb has are there already. */
  declare(verb: Declaration): void;
  /** Checks what can be known offline. Throws USAGE, LABEL_INVALID or NOT_IN_THIS_VERSION. */
  read(args: readonly string[], options: OptionValues): Input;
  run(context: CommandContext, input: Input): Promise<Outcome>;
}

/** A command whose input type is nobody else's business. */
export interface BoundCommand {
  readonly name: string;
  readonly examples: readonly string[];
  declare(verb: Declaration): void;
  prepare(
    args: readonly string[],
    options: OptionValues,
  ): (context: CommandContext) => Promise<Outcome>;
}

export function bindCommand<Input>(command: Command<Input>): BoundCommand {
  return {
    name: command.name,
    examples: command.examples,
    declare: (verb) => command.declare(verb),
    prepare: (args, options) => {
      const input = command.read(args, options);
      return (context) => command.run(context, input);
    },
  };
}

export function flagOption(options: OptionValues, name: string): boolean {
  return options[name] === true;
}

export function textOption(options: OptionValues, name: string): string | null {
  const value = options[name];
  return typeof value === 'string' ? value : null;
}

/** For an option that the command line has already insisted on, or that has a default. */
export function requiredText(value: string | null | undefined, name: string): string {
  if (typeof value === 'string' && value !== '') return value;
  throw new UnderstudyError('USAGE', `${name} is missing`, 'See `understudy <command> --help`.');
}

/** Parses the value of a duration option, such as --timeout. */
export function durationOption(options: OptionValues, name: string, flag: string): number {
  const text = requiredText(textOption(options, name), flag);
  const ms = parseDurationMs(text);
  if (ms !== null) return ms;
  throw new UnderstudyError(
    'USAGE',
    `${flag} ${JSON.stringify(text)} is not a duration`,
    `Write a number with its unit, such as ${flag} 250ms, ${flag} 30s or ${flag} 15m.`,
  );
}

/** Long enough for a ticket and a sentence; the control log keeps it for ever. */
const longestReason = 500;

/** Parses --reason: one line of text, or null when it was not given. */
export function reasonOption(options: OptionValues): string | null {
  const reason = textOption(options, 'reason');
  if (reason === null) return null;
  const line = reason.trim();
  if (line !== '' && line.length <= longestReason && !/[\r\n]/.test(line)) return line;
  throw new UnderstudyError(
    'USAGE',
    `--reason must be one line of 1 to ${longestReason} characters`,
    'Say why in one sentence: --reason "rack 4 burnt down".',
  );
}

/**
 * For an option that is designed but not served yet, so that nobody takes it for a typing error.
 */
export function refuseLaterOption(options: OptionValues, name: string, flag: string): void {
  if (options[name] === undefined || options[name] === false) return;
  throw new UnderstudyError(
    'NOT_IN_THIS_VERSION',
    `${flag} is not part of this version`,
    `Leave ${flag} out.`,
  );
}
