/**
 * The log of a process, on stderr: stdout belongs to the answer. Each entry is a message, the same
 * every time, with the facts as fields; it becomes one JSON object on a line, or one readable line
 * on a terminal. Writing is synchronous, so that the last line before an exit is not lost, and
 * every text is redacted first.
 */
import { type DestinationStream, destination, type Logger as PinoLogger, pino } from 'pino';
import { formatLsn, toLsn } from './change/lsn.ts';
import { type EpochLsn, formatEpochLsn } from './change/position.ts';
import { hasCode, UnderstudyError } from './errors/understudy-error.ts';
import { redacted, redactText } from './redact.ts';

type LogFields = Readonly<Record<string, unknown>>;

/**
 * Handed to every part that logs. An error goes into the field `error`; its facts become fields of
 * the line.
 */
export interface Logger {
  debug(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  error(fields: LogFields, message: string): void;
  /** A logger whose every line carries these fields, such as the node. */
  child(fields: LogFields): Logger;
}

export const logLevels = ['debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof logLevels)[number];

export const logFormats = ['json', 'human'] as const;
type LogFormat = (typeof logFormats)[number];

interface LoggerOptions {
  readonly level: LogLevel;
  readonly format: LogFormat;
  /** Removes secrets from a text; the configuration knows more of them once it is loaded. */
  readonly redact?: (text: string) => string;
  /** The output; stderr except in tests. */
  readonly stream?: DestinationStream;
}

const stderrDescriptor = 2;

export function createLogger(options: LoggerOptions): Logger {
  const { level, format } = options;
  const output = options.stream ?? destination({ fd: stderrDescriptor, sync: true });
  const stream: DestinationStream =
    format === 'json' ? output : { write: (line) => output.write(humanLine(line)) };
  const logger = pino(
    {
      level,
      base: null,
      messageKey: 'message',
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
    },
    stream,
  );
  return new RedactingLogger(logger, options.redact ?? redactText, new Set(reservedKeys));
}

/** The keys that every line has: a fact of an error does not replace them. */
const reservedKeys = ['level', 'time', 'message', 'error'];

class RedactingLogger implements Logger {
  readonly #pino: PinoLogger;
  readonly #redact: (text: string) => string;
  /** Keys that the line has already, from `child` or from pino. */
  readonly #boundKeys: ReadonlySet<string>;

  constructor(
    logger: PinoLogger,
    redact: (text: string) => string,
    boundKeys: ReadonlySet<string>,
  ) {
    this.#pino = logger;
    this.#redact = redact;
    this.#boundKeys = boundKeys;
  }

  debug(fields: LogFields, message: string): void {
    this.#write('debug', fields, message);
  }

  info(fields: LogFields, message: string): void {
    this.#write('info', fields, message);
  }

  warn(fields: LogFields, message: string): void {
    this.#write('warn', fields, message);
  }

  error(fields: LogFields, message: string): void {
    this.#write('error', fields, message);
  }

  child(fields: LogFields): Logger {
    const boundKeys = new Set([...this.#boundKeys, ...Object.keys(fields)]);
    return new RedactingLogger(this.#pino.child(this.#clean(fields)), this.#redact, boundKeys);
  }

  #write(level: 'debug' | 'info' | 'warn' | 'error', fields: LogFields, message: string): void {
    if (!this.#pino.isLevelEnabled(level)) return;
    const all = { ...this.#factsOf(fields['error']), ...fields };
    this.#pino[level](this.#clean(all), this.#redact(message));
  }

  #factsOf(error: unknown): LogFields {
    if (!(error instanceof UnderstudyError)) return {};
    return Object.fromEntries(
      Object.entries(error.facts).filter(([key]) => !this.#boundKeys.has(key)),
    );
  }

  #clean(fields: LogFields): Record<string, unknown> {
    const withStack = this.#pino.isLevelEnabled('debug');
    return cleanFields(fields, this.#redact, withStack);
  }
}

/** Of a URL only the credentials are secret, and every text is redacted. */
const secretKey = /^(password|passwd|auth|sasl|secret|authorization)$/i;

/** Other bigints are offsets, counts and microseconds. */
const lsnKey = /^(lsn|\w*Lsn|upto|commit)$/;

/** Deeper values may be large, and are rarely of use in a log line. */
const deepestField = 4;

/** Without secrets; errors and bigints in a form that JSON has. */
function cleanFields(
  fields: LogFields,
  redact: (text: string) => string,
  withStack: boolean,
): Record<string, unknown> {
  const clean = (value: unknown, depth: number, key = ''): unknown => {
    if (typeof value === 'string') return redact(value);
    if (typeof value === 'bigint') {
      return lsnKey.test(key) ? formatLsn(toLsn(value)) : String(value);
    }
    if (typeof value !== 'object' || value === null) return value;
    if (isEpochLsn(value)) return formatEpochLsn(value);
    if (value instanceof Error) return errorFields(value, redact, withStack);
    if (value instanceof Date) return value;
    if (value instanceof Uint8Array) return `${value.byteLength} bytes`;
    if (depth >= deepestField) return '…';
    if (Array.isArray(value)) return value.map((item) => clean(item, depth + 1));
    return Object.fromEntries(
      Object.entries(value).map(([inner, one]) => [
        inner,
        secretKey.test(inner) ? redacted : clean(one, depth + 1, inner),
      ]),
    );
  };
  return clean(fields, 0) as Record<string, unknown>;
}

function isEpochLsn(value: object): value is EpochLsn {
  const { epoch, lsn } = value as Partial<EpochLsn>;
  const isWhole = Object.keys(value).length === 2;
  return isWhole && typeof epoch === 'number' && typeof lsn === 'bigint';
}

/** A longer chain of causes repeats itself. */
const longestCauseChain = 8;

interface ErrorFields {
  readonly code?: string;
  readonly message: string;
  readonly hint?: string;
  /** Messages of the causes, the nearest first. */
  readonly causes?: readonly string[];
  readonly stack?: string;
}

/** The stack is for bugs and for debugging; elsewhere it hides the one line of cause. */
function errorFields(
  error: Error,
  redact: (text: string) => string,
  withStack: boolean,
): ErrorFields {
  const causes: string[] = [];
  let cause = error.cause;
  while (cause !== undefined && cause !== null && causes.length < longestCauseChain) {
    causes.push(redact(cause instanceof Error ? messageOf(cause) : String(cause)));
    cause = cause instanceof Error ? cause.cause : undefined;
  }
  const code = codeOf(error);
  const isBug = hasCode(error, 'BUG');
  const stack = withStack || isBug ? error.stack : undefined;
  return {
    ...(code === undefined ? {} : { code }),
    message: redact(messageOf(error)),
    ...(error instanceof UnderstudyError ? { hint: redact(error.hint) } : {}),
    ...(causes.length === 0 ? {} : { causes }),
    ...(stack === undefined ? {} : { stack: redact(stack) }),
  };
}

/** A refused connection to several addresses is an AggregateError without a message. */
function messageOf(error: Error): string {
  return error.message === '' ? (codeOf(error) ?? error.name) : error.message;
}

function codeOf(error: Error): string | undefined {
  return 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

/** `12:34:56.789 warn  published (node=a rows=3)`, and an error's lines indented below. */
export function humanLine(line: string): string {
  const { time, level, message, error, ...fields } = JSON.parse(line) as Record<string, unknown>;
  const clock = String(time).slice('2025-01-01T'.length, -1);
  const pairs = Object.entries(fields).map(([key, value]) => `${key}=${plain(value)}`);
  const details = pairs.length === 0 ? '' : ` (${pairs.join(' ')})`;
  const first = `${clock} ${String(level).padEnd(5)} ${plain(message ?? '')}${details}\n`;
  return first + humanError(error);
}

function humanError(error: unknown): string {
  if (error === undefined) return '';
  if (typeof error !== 'object' || error === null) return `    ${plain(error)}\n`;
  const { code, message, hint, causes, stack } = error as Partial<ErrorFields>;
  const lines = [`${code === undefined ? '' : `${code}: `}${message ?? ''}`];
  for (const cause of causes ?? []) lines.push(`because ${cause}`);
  if (hint !== undefined) lines.push(`HINT: ${hint}`);
  if (stack !== undefined) lines.push(stack);
  return lines.map((text) => `    ${text.replaceAll('\n', '\n    ')}\n`).join('');
}

function plain(value: unknown): string {
  return typeof value === 'string' ? value.replace(/\s*\n\s*/g, ' ') : JSON.stringify(value);
}
