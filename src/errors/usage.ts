/**
 * What is wrong on the command line or in understudy.yaml, known without a connection: USAGE,
 * CONFIG_INVALID, NODE_UNKNOWN, LABEL_INVALID, NOT_IN_THIS_VERSION. No message holds a value of the
 * file: it may be a secret.
 */
import { UnderstudyError } from './understudy-error.ts';

const helpHint = 'See `understudy --help`.';

export function noCommand(): UnderstudyError {
  return new UnderstudyError('USAGE', 'no command was given', helpHint);
}

/** `verb` is null where none was recognised; `suggestion` is empty where there is none. */
export function unusableCommandLine(
  message: string,
  suggestion: string,
  verb: string | null,
): UnderstudyError {
  const help = verb === null ? helpHint : `See \`understudy ${verb} --help\`.`;
  return new UnderstudyError('USAGE', message, `${suggestion} ${help}`.trim());
}

export function missingArgument(name: string): UnderstudyError {
  return new UnderstudyError('USAGE', `${name} is missing`, 'See `understudy <command> --help`.');
}

export function invalidDuration(option: string, text: string): UnderstudyError {
  return new UnderstudyError(
    'USAGE',
    `${option} ${JSON.stringify(text)} is not a duration`,
    `Write a number with its unit, such as ${option} 250ms, ${option} 30s or ${option} 15m.`,
  );
}

export function invalidReason(lengthMax: number): UnderstudyError {
  return new UnderstudyError(
    'USAGE',
    `--reason must be one line of 1 to ${lengthMax} characters`,
    'Give the reason in one sentence: --reason "rack 4 burnt down".',
  );
}

export function reasonMissing(): UnderstudyError {
  return new UnderstudyError(
    'USAGE',
    '--allow-data-loss needs a reason',
    'Add --reason "…": the control log keeps it with the promotion.',
  );
}

export function invalidLogLevel(text: string, levels: readonly string[]): UnderstudyError {
  return new UnderstudyError(
    'USAGE',
    `UNDERSTUDY_LOG_LEVEL ${JSON.stringify(text)} is not a log level`,
    `Set it to one of ${levels.join(', ')}.`,
  );
}

export function invalidKeyCount(text: string, countMax: number): UnderstudyError {
  return new UnderstudyError(
    'USAGE',
    `--keys ${JSON.stringify(text)} is not a number from 0 to ${countMax}`,
    'Give the number of keys to show of each table, such as --keys 1000.',
  );
}

export function invalidPoint(text: string): UnderstudyError {
  return new UnderstudyError(
    'USAGE',
    `${JSON.stringify(text)} is neither a point label nor an LSN`,
    'Write a label such as before-migration, or an LSN such as 3:0/16B3748 or 0/16B3748.',
  );
}

export function invalidListenAddress(text: string): UnderstudyError {
  return new UnderstudyError(
    'USAGE',
    `${JSON.stringify(text)} is not an address to listen on`,
    'Write host:port or a port, such as 127.0.0.1:8080; 0.0.0.0:8080 is open to the network.',
  );
}

export function nodeNamedTwice(node: string): UnderstudyError {
  return new UnderstudyError('USAGE', `node ${node} is named twice`, 'Name each node once.');
}

export function untilForOneNode(): UnderstudyError {
  return new UnderstudyError(
    'USAGE',
    '--until is for one node',
    'Name the one follower that is to stop there: `understudy run b --until before-deploy`',
  );
}

export function replaceForOneNode(): UnderstudyError {
  return new UnderstudyError(
    'USAGE',
    '--replace is for one node',
    'Name the one node that has another database now: `understudy run a --replace`',
  );
}

export function tablesOrAll(): UnderstudyError {
  return new UnderstudyError(
    'USAGE',
    'name the tables to resnapshot, or give --all; --new-slot goes with --all',
    '`understudy resnapshot public.orders`, or `understudy resnapshot --all`',
  );
}

export function unknownTable(pattern: string): UnderstudyError {
  return new UnderstudyError(
    'USAGE',
    `no table of the stream matches ${pattern}`,
    'Write schema.table, or a pattern as in understudy.yaml: `understudy resnapshot public.orders`',
    undefined,
    { pattern },
  );
}

/** What the HTTP server answers to a request that it does not serve. */
export function unusableRequest(message: string, hint: string): UnderstudyError {
  return new UnderstudyError('USAGE', message, hint);
}

export function invalidLabel(text: string): UnderstudyError {
  return new UnderstudyError(
    'LABEL_INVALID',
    `${JSON.stringify(text)} is not a point label`,
    'A label is 1 to 63 of a-z, 0-9, _ . and -, beginning with a letter.',
  );
}

export function verbOfLaterVersion(verb: string): UnderstudyError {
  return new UnderstudyError(
    'NOT_IN_THIS_VERSION',
    `${verb} is not part of this version`,
    '`understudy --help` lists the commands of this version.',
  );
}

export function optionOfLaterVersion(option: string): UnderstudyError {
  return new UnderstudyError(
    'NOT_IN_THIS_VERSION',
    `${option} is not part of this version`,
    `Leave ${option} out.`,
  );
}

/** `where` is the file with the line; `served` is the only value of this version. */
export function settingOfLaterVersion(where: string, key: string, served: string): UnderstudyError {
  return new UnderstudyError(
    'NOT_IN_THIS_VERSION',
    `${where}: ${key} can only be ${served} in this version`,
    `Set ${key} to ${served}, or leave it out.`,
    undefined,
    { key },
  );
}

/** `nearest` is the node that was probably meant. */
export function unknownNode(
  file: string,
  node: string,
  nearest: string | null,
  known: readonly string[],
): UnderstudyError {
  return new UnderstudyError(
    'NODE_UNKNOWN',
    `${file} names no node ${JSON.stringify(node)}`,
    `${nearest === null ? '' : `Did you mean ${nearest}? `}Known: ${known.join(', ')}.`,
    undefined,
    { node },
  );
}

export function unreadableConfig(file: string, errorCode: string, cause: unknown): UnderstudyError {
  return new UnderstudyError(
    'CONFIG_INVALID',
    `cannot read ${file} (${errorCode})`,
    'Create understudy.yaml here, or name it with --config FILE or UNDERSTUDY_CONFIG.',
    cause,
    { file },
  );
}

export function invalidYaml(file: string, line: number, yamlCode: string): UnderstudyError {
  return new UnderstudyError(
    'CONFIG_INVALID',
    `${file}:${line}: not valid YAML (${yamlCode})`,
    'Correct the line. Put "…" around a value that holds one of $ { } [ ] : # * & ! | > % @.',
    undefined,
    { file, line },
  );
}

export function invalidYamlAlias(file: string, cause: unknown): UnderstudyError {
  return new UnderstudyError(
    'CONFIG_INVALID',
    `${file}: an alias (*name) has no anchor (&name), or there are too many`,
    'Quote the value that begins with *, or define its anchor above it.',
    cause,
    { file },
  );
}

/** `problem` completes the sentence; `where` is the file with the line. */
export function invalidSetting(
  where: string,
  key: string,
  problem: string,
  hint: string,
): UnderstudyError {
  const message = `${where}: ${key} ${problem}`;
  return new UnderstudyError('CONFIG_INVALID', message, hint, undefined, { key });
}

/** `more` counts the other problems of the file; `meant` is the key that was probably meant. */
export function unknownSetting(
  where: string,
  key: string,
  more: string,
  meant: string | null,
  known: readonly string[],
): UnderstudyError {
  return new UnderstudyError(
    'CONFIG_INVALID',
    `${where}: unknown key ${key}${more}`,
    `${meant === null ? '' : `Did you mean ${meant}? `}Known here: ${known.join(', ')}.`,
    undefined,
    { key },
  );
}

export function malformedVariable(key: string): UnderstudyError {
  return new UnderstudyError(
    'CONFIG_INVALID',
    `${key} holds a \${…} that is not a variable`,
    `Write \${NAME} or \${NAME:-default}; write $\${ for a literal \${.`,
    undefined,
    { key },
  );
}

export function variableNotSet(name: string, key: string): UnderstudyError {
  return new UnderstudyError(
    'CONFIG_INVALID',
    `the environment variable ${name}, which ${key} uses, is not set`,
    `Set ${name}, or give it a default in understudy.yaml: \${${name}:-…}.`,
    undefined,
    { variable: name, key },
  );
}

/** `problem` holds no piece of the URL: any piece may be part of the password. */
export function invalidNodeUrl(key: string, problem: string, escapes = ''): UnderstudyError {
  return new UnderstudyError(
    'CONFIG_INVALID',
    `${key} ${problem}`,
    `Write ${key} as postgres://user:password@host:port/database. ${escapes}`.trimEnd(),
    undefined,
    { key },
  );
}

export function invalidRegistryUrl(): UnderstudyError {
  return new UnderstudyError(
    'CONFIG_INVALID',
    'registry.url is not an http or https URL',
    'Write registry.url as http://host:port/apis/ccompat/v7, or as your registry names it.',
  );
}

export function invalidBroker(key: string): UnderstudyError {
  return new UnderstudyError(
    'CONFIG_INVALID',
    `${key} is not host:port`,
    `Write ${key} as host:port; several may be in a list or separated by commas.`,
    undefined,
    { key },
  );
}

export function halfClientCertificate(): UnderstudyError {
  return new UnderstudyError(
    'CONFIG_INVALID',
    'kafka.ssl has one of cert and key without the other',
    'Give both kafka.ssl.cert and kafka.ssl.key, or neither.',
  );
}

export function unreadablePem(key: string, errorCode: string, cause: unknown): UnderstudyError {
  return new UnderstudyError(
    'CONFIG_INVALID',
    `${key}: cannot read the file (${errorCode})`,
    `Name a readable PEM file in ${key}, relative to understudy.yaml, or put the PEM in.`,
    cause,
    { key },
  );
}

export function invalidFailpoints(problem: string, names: readonly string[]): UnderstudyError {
  return new UnderstudyError(
    'CONFIG_INVALID',
    `UNDERSTUDY_FAILPOINTS: ${problem}`,
    `Actions: kill, error, pause:<ms>. Names: ${names.join(', ')}.`,
  );
}

/** `shownUrl` without its password. No cause: the error of a parser may quote the URL. */
export function invalidPostgresUrl(shownUrl: string, reason: string): UnderstudyError {
  return new UnderstudyError(
    'CONFIG_INVALID',
    `cannot use the Postgres URL ${shownUrl} (${reason})`,
    'Write it as postgres://user:password@host:port/database, with special characters as %XX.',
  );
}

export function invalidTablePattern(pattern: string): UnderstudyError {
  return new UnderstudyError(
    'CONFIG_INVALID',
    `the table pattern ${JSON.stringify(pattern)} does not have the form schema.table`,
    `Write it with its schema, for example "public.${pattern.replaceAll('.', '') || '*'}".`,
    undefined,
    { pattern },
  );
}

export function partitionsRefused(
  topic: string,
  partitions: number,
  cause: unknown,
): UnderstudyError {
  return new UnderstudyError(
    'CONFIG_INVALID',
    `${topic} cannot have ${partitions} partitions`,
    'Set kafka.partitions in understudy.yaml to 1 or more.',
    cause,
    { topic, partitions },
  );
}

export function topicSettingRefused(
  topic: string,
  settings: readonly string[],
  cause: unknown,
): UnderstudyError {
  return new UnderstudyError(
    'CONFIG_INVALID',
    `Kafka refuses a setting of ${topic}: ${settings.join(', ')}`,
    'Check kafka.topic in understudy.yaml against the topic settings of this Kafka version.',
    cause,
    { topic },
  );
}

/** A request of another version, or for rows that no key identifies. */
export function keyOfNoRow(relation: string, columns: number): UnderstudyError {
  return new UnderstudyError(
    'USAGE',
    `${relation} has no rows with a key of ${columns} columns`,
    'Run the version of pg-understudy that the leader runs; rows without a key are not repaired.',
    undefined,
    { relation, columns },
  );
}

/** A request in the control log whose arguments the agent cannot use; `what` says what it names. */
export function incompleteRequest(id: string, what: string): UnderstudyError {
  return new UnderstudyError(
    'USAGE',
    `the request ${id} names ${what}`,
    'Run the version of pg-understudy that the agent runs.',
    undefined,
    { request: id },
  );
}
