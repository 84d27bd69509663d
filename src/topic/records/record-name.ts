/**
 * Names a record for people by what its key says. Flows in: the bytes of a key; flows out: `the row
 * ("4711") of public.orders`, or null for bytes that are no key of ours. Values of a key are cut
 * short, and stay on one line whatever they hold.
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

/** What is no key of ours, such as one of the control log, is no error here. */
function decodedKey(key: Buffer): RecordKey | null {
  if (key.length === 0 || key[0] !== 0) return null;
  try {
    return decodeFramed(fixedSchemas.key.type, key) as RecordKey;
  } catch {
    return null;
  }
}
