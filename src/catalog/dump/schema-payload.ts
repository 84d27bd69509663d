/**
 * The schema of a database as a record of the topic holds it: the statements of a dump and the
 * shapes of the stream's tables, as text and back. It is all that a new node needs to create empty
 * tables. Of its post-data, primary keys and replica identities are needed before rows are applied;
 * `splitPostData` finds their statements. Pure.
 */
import type { RelationShape } from '../../change/change.ts';
import { malformedSchemaRecord } from '../../errors/topic.ts';

export interface SchemaPayload {
  /** server_version_num of the server that was dumped: 150018. */
  readonly serverVersion: number;
  /** What rows need: types, functions, tables, in the order in which they can be run. */
  readonly preData: readonly string[];
  /** What rows do not need: indexes, constraints, triggers, rules, policies. */
  readonly postData: readonly string[];
  /** The tables of the stream, with their relation and column ids. */
  readonly relations: readonly RelationShape[];
}

export function encodeSchema(schema: SchemaPayload): string {
  const { serverVersion, preData, postData, relations } = schema;
  return JSON.stringify({ serverVersion, preData, postData, relations });
}

/** The digest of the text is right, so only another program can have written anything else. */
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

const namePattern = '(?:"(?:[^"]|"")+"|[A-Za-z_\\u0080-\\uffff][\\w$\\u0080-\\uffff]*)';
const inSchema = `(${namePattern})\\.(${namePattern})`;

const constraint = new RegExp(
  `^ALTER TABLE (?:ONLY )?${inSchema}\\s+` +
    `ADD CONSTRAINT (${namePattern}) (PRIMARY KEY|UNIQUE)\\b`,
);
const uniqueIndex = new RegExp(`^CREATE UNIQUE INDEX (${namePattern}) ON (?:ONLY )?${inSchema} `);
const replicaIdentity = new RegExp(
  `^ALTER TABLE (?:ONLY )?${inSchema}\\s+REPLICA IDENTITY USING INDEX (${namePattern})$`,
);
const attachment = new RegExp(`^ALTER INDEX ${inSchema} ATTACH PARTITION ${inSchema}$`);

interface SplitPostData {
  /** Creates primary keys and replica identities, by which rows are found. */
  readonly identity: readonly string[];
  readonly rest: readonly string[];
}

/** Splits the statements of post-data; each part keeps their order. */
export function splitPostData(postData: readonly string[]): SplitPostData {
  const parsed = postData.map((statement) => ({ statement, ...parse(statement) }));
  const wanted = new Set(
    parsed.flatMap(({ index, kind }) => (kind === 'primary' || kind === 'chosen' ? [index] : [])),
  );
  // The index of a partitioned table is invalid until those of its partitions are attached.
  for (let size = -1; size !== wanted.size; ) {
    size = wanted.size;
    for (const { index, attached } of parsed) {
      if (attached !== null && wanted.has(index)) wanted.add(attached);
    }
  }
  const identity: string[] = [];
  const rest: string[] = [];
  for (const { statement, index } of parsed) {
    (index !== null && wanted.has(index) ? identity : rest).push(statement);
  }
  return { identity, rest };
}

interface Parsed {
  readonly kind: 'primary' | 'unique' | 'chosen' | 'attached' | 'other';
  /** An index is in the schema of its table. */
  readonly index: string | null;
  /** The index of a partition that becomes part of it. */
  readonly attached: string | null;
}

function parse(statement: string): Parsed {
  const [, schema, , name, word] = constraint.exec(statement) ?? [];
  if (schema !== undefined) {
    const kind = word === 'UNIQUE' ? 'unique' : 'primary';
    return { kind, index: `${schema}.${name}`, attached: null };
  }
  const [, unique, itsSchema] = uniqueIndex.exec(statement) ?? [];
  if (unique !== undefined) {
    return { kind: 'unique', index: `${itsSchema}.${unique}`, attached: null };
  }
  const [, of, , chosen] = replicaIdentity.exec(statement) ?? [];
  if (of !== undefined) return { kind: 'chosen', index: `${of}.${chosen}`, attached: null };
  const [, parentSchema, parent, childSchema, child] = attachment.exec(statement) ?? [];
  if (parentSchema === undefined) return { kind: 'other', index: null, attached: null };
  const index = `${parentSchema}.${parent}`;
  return { kind: 'attached', index, attached: `${childSchema}.${child}` };
}
