/**
 * Parts what a dump makes after the rows into what following needs at once and what can wait. Flows
 * in: the post-data statements of a dump; flows out: those that make primary keys and replica
 * identities, by which rows are found, and all the others, both in their order. Pure.
 */

const namePattern = '(?:"(?:[^"]|"")+"|[A-Za-z_\\u0080-\\uffff][\\w$\\u0080-\\uffff]*)';
const tablePattern = `${namePattern}\\.${namePattern}`;

const constraint = new RegExp(
  `^ALTER TABLE (?:ONLY )?(${tablePattern})\\s+` +
    `ADD CONSTRAINT (${namePattern}) (PRIMARY KEY|UNIQUE)\\b`,
);
const uniqueIndex = new RegExp(
  `^CREATE UNIQUE INDEX (${namePattern}) ON (?:ONLY )?(${tablePattern}) `,
);
const replicaIdentity = new RegExp(
  `^ALTER TABLE (?:ONLY )?(${tablePattern})\\s+REPLICA IDENTITY USING INDEX (${namePattern})$`,
);

export interface PartedPostData {
  readonly identity: readonly string[];
  readonly rest: readonly string[];
}

export function partPostData(postData: readonly string[]): PartedPostData {
  const chosen = new Set(
    postData.flatMap((statement) => {
      const [, table, index] = replicaIdentity.exec(statement) ?? [];
      return table === undefined ? [] : [`${table} ${index}`];
    }),
  );
  const identity: string[] = [];
  const rest: string[] = [];
  for (const statement of postData) {
    (isIdentity(statement, chosen) ? identity : rest).push(statement);
  }
  return { identity, rest };
}

function isIdentity(statement: string, chosen: ReadonlySet<string>): boolean {
  if (replicaIdentity.test(statement)) return true;
  const [, table, name, kind] = constraint.exec(statement) ?? [];
  if (table !== undefined) return kind === 'PRIMARY KEY' || chosen.has(`${table} ${name}`);
  const [, index, on] = uniqueIndex.exec(statement) ?? [];
  return index !== undefined && chosen.has(`${on} ${index}`);
}
