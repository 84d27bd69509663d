/**
 * Parts what a dump makes after the rows into what following needs at once and what can wait. Flows
 * in: the post-data statements of a dump; flows out: those that make primary keys and replica
 * identities, by which rows are found, and all the others, both in their order. Pure.
 */

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

interface PartedPostData {
  readonly identity: readonly string[];
  readonly rest: readonly string[];
}

export function partPostData(postData: readonly string[]): PartedPostData {
  const parsed = postData.map((statement) => ({ statement, ...parse(statement) }));
  const wanted = new Set(
    parsed.flatMap(({ index, kind }) => (kind === 'primary' || kind === 'chosen' ? [index] : [])),
  );
  // The index of a partitioned table is not valid before those of its partitions are attached.
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
  /** The index of a partition that becomes a part of it. */
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
