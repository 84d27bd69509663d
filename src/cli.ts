#!/usr/bin/env node
/**
 * The command `understudy`. The answer of a verb goes to stdout, lines for people and the log go to
 * stderr, and the process ends with an exit code. This file opens what every verb needs, closes all
 * that a verb opened, and is the only one that ends the process.
 */
import { failureLines, failureOf, jsonLine, stackOf } from './commands/answer.ts';
import type { Outcome } from './commands/command.ts';
import { type GlobalOptions, type Invocation, readCommandLine } from './commands/command-line.ts';
import { ProgressLine } from './commands/progress-line.ts';
import type { Config } from './config/config.ts';
import { bug } from './errors/bug.ts';
import { invalidLogLevel } from './errors/usage.ts';
import { armFailpoints } from './failpoints.ts';
import { onSignals, Releasers, Stopped } from './lifecycle.ts';
import { createLogger, type Logger, logFormats, logLevels } from './logger.ts';
import { packageVersion } from './package-files.ts';
import { endWhenIdle, openResources } from './process-end.ts';
import { redactText } from './redact.ts';
import { sleep } from './waiting.ts';

/** The configuration knows its secrets once it is loaded. */
let loadedConfig: Config | null = null;
const redact = (text: string): string => loadedConfig?.redact(text) ?? redactText(text);

/** The log once it is open, and whether stderr is that log alone: of `run` with JSON lines. */
let log: Logger | null = null;
let isService = false;
/** False where nothing at all is logged. */
let showsErrors = true;
/** Errors that the log shows: they are not printed once more. */
const loggedErrors = new WeakSet<object>();

const stop = new AbortController();
const words = process.argv.slice(2);
const wantsJson = words.includes('--json');
let showsStacks = process.env['UNDERSTUDY_LOG_LEVEL'] === 'debug';

const progress = new ProgressLine({
  write: (text) => process.stderr.write(text),
  columns: () => (process.stderr.isTTY ? process.stderr.columns || 80 : null),
  nowMs: Date.now,
});

function people(line: string): void {
  if (isService) {
    log?.info({ text: line }, 'note');
    return;
  }
  progress.clear();
  process.stderr.write(`${redact(line)}\n`);
}

function print(answer: object | null, lines: readonly string[], json: boolean): void {
  if (answer === null) return;
  progress.clear();
  process.stdout.write(json ? jsonLine(answer) : lines.map((line) => `${line}\n`).join(''));
}

/** Prints the cause and the hint in the requested form, and returns the exit code. */
function fail(error: unknown): number {
  progress.clear();
  const failure = failureOf(error, stop.signal, redact);
  const reason: unknown = stop.signal.reason;
  const isUnread = reason instanceof Stopped && reason.stopSignal === 'SIGPIPE';
  // A reader of stdout that left needs no report.
  if (isUnread && failure.code === 'STOPPED') return failure.exit;
  if (wantsJson) process.stdout.write(jsonLine({ error: failure }));
  else if (isService && !isLogged(error)) log?.error({ error }, 'the command failed');
  else if (!isLogged(error)) {
    for (const line of failureLines(failure)) process.stderr.write(`${line}\n`);
  }
  if (showsStacks) process.stderr.write(`${redact(stackOf(error))}\n`);
  return failure.exit;
}

function isLogged(error: unknown): boolean {
  return typeof error === 'object' && error !== null && loggedErrors.has(error);
}

function openLogger(options: GlobalOptions, verb: string): Logger {
  const wanted = options.logLevel ?? (process.env['UNDERSTUDY_LOG_LEVEL'] || 'info');
  const level = logLevels.find((known) => known === wanted);
  if (level === undefined) {
    throw invalidLogLevel(wanted, logLevels);
  }
  showsStacks = level === 'debug';
  const format = logFormats.find((known) => known === options.logFormat);
  const byDefault = process.stderr.isTTY ? 'human' : 'json';
  const chosen = format ?? byDefault;
  // A silent log would hide why the process ends.
  showsErrors = level !== 'silent';
  isService = verb === 'run' && chosen === 'json' && showsErrors;
  log = createLogger({ level, format: chosen, redact });
  return log;
}

async function runVerb(invocation: Extract<Invocation, { kind: 'verb' }>): Promise<number> {
  const { options } = invocation;
  const log = openLogger(options, invocation.name);
  const { loadConfig } = await import('./config/config.ts');
  const releasers = new Releasers();
  try {
    const config = loadConfig({
      option: options.config,
      workingDirectory: process.cwd(),
      environment: process.env,
    });
    loadedConfig = config;
    const outcome: Outcome = await invocation.run({
      config,
      json: options.json,
      log,
      signal: stop.signal,
      releasers,
      now: Date.now,
      random: Math.random,
      sleep,
      people,
      progress: (line) => {
        if (!options.json) progress.show(redact(line));
      },
      print: (answer, lines) => print(answer, lines, options.json),
      logged: (error) => {
        if (showsErrors) loggedErrors.add(error);
      },
    });
    print(outcome.answer, outcome.lines, options.json);
    return outcome.exit;
  } catch (error) {
    return fail(error);
  } finally {
    for (const error of await releasers.close()) log.warn({ error }, 'could not close a resource');
  }
}

async function main(): Promise<number> {
  try {
    armFailpoints(process.env['UNDERSTUDY_FAILPOINTS']);
    const invocation = await readCommandLine(words, packageVersion());
    if (invocation.kind === 'verb') return await runVerb(invocation);
    process.stdout.write(invocation.text);
    return 0;
  } catch (error) {
    return fail(error);
  }
}

/** The state after an uncaught failure is unknown: the process may not continue. */
process.on('uncaughtException', (error) => process.exit(fail(error)));

/** Node prints them as plain text. Those of libraries about their own future are for debugging. */
process.removeAllListeners('warning');
process.on('warning', ({ name, message }) => {
  if (log === null) people(`${name}: ${message}`);
  else if (name === 'DeprecationWarning') log.debug({ warning: name, text: message }, 'warning');
  else log.warn({ warning: name, text: message }, 'warning');
});

/** The reader of stdout has exited, as `head` does: that ends the command like a signal. */
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  stop.abort(new Stopped('SIGPIPE'));
});

/** A closed stderr is no reason to stop the command. */
process.stderr.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
});

onSignals({
  source: process,
  controller: stop,
  exit: (code) => process.exit(code),
  notice: people,
});

const resourcesBefore = openResources();
let ended = false;

/** Node would exit here with its own code: no open resource can resume the command. */
process.once('beforeExit', () => {
  if (ended) return;
  process.exit(fail(bug('the command waits, and no resource is open')));
});

void main().then((exit) => {
  ended = true;
  endWhenIdle(exit, resourcesBefore);
});
