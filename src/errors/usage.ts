/**
 * What is wrong on the command line or in understudy.yaml, known without a connection: USAGE,
 * CONFIG_INVALID, NODE_UNKNOWN, LABEL_INVALID, NOT_IN_THIS_VERSION.
 */
import { UnderstudyError } from './understudy-error.ts';

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
