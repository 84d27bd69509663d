/**
 * Names a record in an error message by its key: `the row ("4711") of public.orders`, or null for
 * bytes that are not a key of the changes topic. Values of a key are shortened, and stay on one
 * line whatever they hold.
 */
import { decodeFramed } from './avro-codec.ts';
import { fixedSchemas } from './fixed-schemas.ts';
import type { RecordKey } from './layout.ts';

/** Of each value of a key: enough to find the row. */
const valueCharsMax = 60;

export function recordName(key: Buffer): string | null {
  const decoded = decodedKey(key);
  if (decoded === null) return null;
  const { kind, relation, identity } = decoded;
  if (relation === '') return `the ${kind} record`;
  if (kind !== 'row') return `the ${kind} record of ${relation}`;
  return `the row (${identity.map(shortened).join(', ')}) of ${relation}`;
}

function shortened(value: string): string {
  const isLong = value.length > valueCharsMax;
  return JSON.stringify(isLong ? `${value.slice(0, valueCharsMax)}…` : value);
}

/** Null for other keys, such as those of the control log: they are no error here. */
function decodedKey(key: Buffer): RecordKey | null {
  if (key.length === 0 || key[0] !== 0) return null;
  try {
    return decodeFramed(fixedSchemas.key.type, key) as RecordKey;
  } catch {
    return null;
  }
}
