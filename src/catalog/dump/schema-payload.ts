/**
 * A database's schema as it travels. Flows in: the statements of a dump and the shapes that the
 * stream knows its tables by; flows out: text for the topic, and back. Whoever holds it can make
 * empty tables from nothing else. Pure.
 */
import type { RelationShape } from '../../change/change.ts';
import { malformedSchemaRecord } from '../../errors/topic.ts';

export interface SchemaPayload {
  /** server_version_num of the server that was dumped: 150018. */
  readonly serverVersion: number;
  /** What rows need: types, functions, tables. In the order in which they can be run. */
  readonly preData: readonly string[];
  /** What rows can do without: indexes, constraints, triggers, rules, policies. */
  readonly postData: readonly string[];
  /** The tables of the stream, with their relation and column ids. */
  readonly relations: readonly RelationShape[];
}

export function encodeSchema(schema: SchemaPayload): string {
  const { serverVersion, preData, postData, relations } = schema;
  return JSON.stringify({ serverVersion, preData, postData, relations });
}

/** A digest has said that this is what was written: only a stranger's can look otherwise. */
export function decodeSchema(text: string): SchemaPayload {
  const schema = JSON.parse(text) as Partial<SchemaPayload> | null;
  const { serverVersion, preData, postData, relations } = schema ?? {};
  if (
    typeof serverVersion === 'number' &&
    isTexts(preData) &&
    isTexts(postData) &&
    Array.isArray(relations)
  ) {
    return { serverVersion, preData, postData, relations };
  }
  throw malformedSchemaRecord();
}

function isTexts(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((text) => typeof text === 'string');
}
