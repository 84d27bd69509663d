/**
 * The contract of a verb. Each verb is one file that exports a Command: it declares its arguments
 * and options, turns them into its own input, and runs. Its outcome is the answer for programs, the
 * same for people, and the exit code. A verb prints nothing by itself and never ends the process.
 */
import type { Command as Declaration } from 'commander';
import { parseDurationMs } from '../change/amounts.ts';
import type { Config } from '../config/config.ts';
import type { ExitCode } from '../errors/codes.ts';
import {
  invalidDuration,
  invalidReason,
  missingArgument,
  optionOfLaterVersion,
} from '../errors/usage.ts';
import type { Releasers } from '../lifecycle.ts';
import type { Logger } from '../logger.ts';
import type { Sleep } from '../waiting.ts';

export interface Outcome {
  /**
   * The object that --json prints. LSNs are text, unknown values are null, bigints become numbers.
   * null prints nothing: for a verb that has printed its answers already.
   */
  readonly answer: object | null;
  /** The same for people, on stdout. */
  readonly lines: readonly string[];
  readonly exit: ExitCode;
}

export interface CommandContext {
  /** Read and checked; settings that hold secrets are expanded when they are read. */
  readonly config: Config;
  readonly json: boolean;
  readonly log: Logger;
  /** Aborted by SIGTERM, SIGINT, or when the reader of stdout exits: drain and return. */
  readonly signal: AbortSignal;
  /** Closed after the verb, the last opened first. */
  readonly releasers: Releasers;
  readonly now: () => number;
  readonly random: () => number;
  readonly sleep: Sleep;
  /** Prints one line for people, on stderr: notes that are no part of the answer. */
  people(line: string): void;
  /** Shows progress on stderr: in place on a terminal, else every few seconds; not with --json. */
  progress(line: string): void;
  /** The log shows this error, with its hint: as the end of the command it is not printed again. */
  logged(error: Error): void;
  /** Prints an answer before the last one: with --json one object on a line. */
  print(answer: object, lines: readonly string[]): void;
}

export type OptionValues = Readonly<Record<string, unknown>>;

export interface Command<Input> {
  readonly name: string;
  /** Whole command lines, shown below the verb's help. */
  readonly examples: readonly string[];
  /** Adds arguments and options to those that every verb has. */
  declare(verb: Declaration): void;
  /** Checks all that needs no connection. Throws USAGE, LABEL_INVALID, NOT_IN_THIS_VERSION. */
  read(args: readonly string[], options: OptionValues): Input;
  run(context: CommandContext, input: Input): Promise<Outcome>;
}

/** A command whose input type is hidden. */
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

/** For an option that the command line requires, or that has a default. */
export function requiredText(value: string | null | undefined, name: string): string {
  if (typeof value === 'string' && value !== '') return value;
  throw missingArgument(name);
}

/** Parses the value of a duration option, such as --timeout. */
export function durationOption(options: OptionValues, name: string, flag: string): number {
  const text = requiredText(textOption(options, name), flag);
  const ms = parseDurationMs(text);
  if (ms !== null) return ms;
  throw invalidDuration(flag, text);
}

/** Long enough for a ticket and a sentence; the control log keeps it forever. */
const longestReason = 500;

/** Parses --reason: one line of text, or null when it was not given. */
export function reasonOption(options: OptionValues): string | null {
  const reason = textOption(options, 'reason');
  if (reason === null) return null;
  const line = reason.trim();
  if (line !== '' && line.length <= longestReason && !/[\r\n]/.test(line)) return line;
  throw invalidReason(longestReason);
}

/**
 * For an option of a later version, which is not to be taken for a typing error.
 */
export function refuseLaterOption(options: OptionValues, name: string, flag: string): void {
  if (options[name] === undefined || options[name] === false) return;
  throw optionOfLaterVersion(flag);
}
