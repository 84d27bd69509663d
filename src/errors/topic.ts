/**
 * Records, topics and values that are not what this version writes: TOPIC_MISMATCH, DAMAGED,
 * MESSAGE_UNKNOWN, FORMAT_TOO_NEW, RECORD_TOO_LARGE, TYPE_RANGE.
 */
import { UnderstudyError } from './understudy-error.ts';

/** `what` is a record or an object in a database that carries a format version. */
export function newerFormat(what: string, format: number, known: number): UnderstudyError {
  return new UnderstudyError(
    'FORMAT_TOO_NEW',
    `${what} has format ${format}, this version reads up to ${known}`,
    'Install on this node the version of pg-understudy that the other nodes run.',
    undefined,
    { what, format, known },
  );
}

/** `where` names the record, `problem` completes the sentence. */
export function unknownControlRecord(
  where: string,
  problem: string,
  offset: bigint,
): UnderstudyError {
  return new UnderstudyError(
    'MESSAGE_UNKNOWN',
    `${where} ${problem}`,
    'Install the newest version of pg-understudy on this node. If a person or another program ' +
      'wrote the record, the control topic cannot be used any more: `understudy destroy`, then ' +
      '`understudy init`.',
    undefined,
    { offset: String(offset) },
  );
}

/** Of a payload whose digest is right. */
export function malformedSchemaRecord(): UnderstudyError {
  return new UnderstudyError(
    'MESSAGE_UNKNOWN',
    'the schema record of the topic holds no schema',
    'Another program wrote to the topic: stop it. The leader of the next epoch writes the schema ' +
      'record again: understudy failover <node>',
  );
}

/** `text` is a timestamp or timestamptz. */
export function timestampOutOfRange(text: string): UnderstudyError {
  return new UnderstudyError(
    'TYPE_RANGE',
    `the timestamp ${text} is outside the range of 64-bit microseconds since 1970`,
    'Change the value to one before 294247-01-10, or to infinity.',
    undefined,
    { value: text },
  );
}
