/**
 * Which statements build a leader's schema on a follower. The statements of a schema come in; steps
 * in their order come out, each with its phase and the settings that it is run under, so that any
 * of them can be the first after a crash; and facts about a single statement: its description, the
 * roles that it names. Pure.
 */

import type { SchemaPayload } from '../../catalog/dump/schema-payload.ts';
import { splitPostData } from '../../catalog/dump/schema-payload.ts';

export type BuildPhase = 'pre-data' | 'post-data';

export interface BuildStep {
  readonly phase: BuildPhase;
  readonly statement: string;
  /** SET LOCAL statements. */
  readonly settings: readonly string[];
}

/** Rows are found by their identity, so its indexes come with the tables. */
export function buildSteps(schema: Pick<SchemaPayload, 'preData' | 'postData'>): BuildStep[] {
  const { identity, rest } = splitPostData(schema.postData);
  return [
    ...stepsOf('pre-data', schema.preData),
    ...stepsOf('pre-data', identity),
    ...stepsOf('post-data', rest),
  ];
}

const setting = /^SET (SESSION AUTHORIZATION|\w+)\b/;
const sessionReset = /^RESET (SESSION AUTHORIZATION|\w+)$/;

function stepsOf(phase: BuildPhase, statements: readonly string[]): BuildStep[] {
  const current = new Map<string, string>();
  return statements.flatMap((statement) => {
    const [, reset] = sessionReset.exec(statement) ?? [];
    const [, set] = setting.exec(statement) ?? [];
    if (reset !== undefined) current.delete(reset);
    else if (set !== undefined) current.set(set, statement.replace(/^SET /, 'SET LOCAL '));
    else return [{ phase, statement, settings: [...current.values()] }];
    return [];
  });
}

const role = '("(?:[^"]|"")+"|[A-Za-z_\\u0080-\\uffff][\\w$\\u0080-\\uffff]*)';

/** Who owns something and who may do what: left out where the role does not exist. */
const roleKinds: readonly RegExp[] = [
  new RegExp(`^ALTER .* OWNER TO ${role}$`, 's'),
  new RegExp(`^GRANT .* TO ${role}(?: WITH GRANT OPTION)?$`, 's'),
  new RegExp(`^REVOKE .* FROM ${role}$`, 's'),
  new RegExp(`^ALTER DEFAULT PRIVILEGES FOR ROLE ${role} .* (?:TO|FROM) ${role}`, 's'),
];
const authorization = new RegExp(`^SET LOCAL SESSION AUTHORIZATION ${role}$`);

/** Whether the settings make the statement run as another role. */
export function actsAsOther(settings: readonly string[]): boolean {
  return settings.some((one) => authorization.test(one));
}

/** The roles that such a statement names; null for any other. */
export function rolesOf(step: Pick<BuildStep, 'statement' | 'settings'>): string[] | null {
  const found = roleKinds.map((kind) => kind.exec(step.statement)).find((match) => match !== null);
  if (found === undefined || found === null) return null;
  const acting = step.settings.flatMap((one) => authorization.exec(one)?.slice(1) ?? []);
  // PUBLIC is no role; quoted it is one.
  const named = [...acting, ...found.slice(1)].filter((name) => name !== 'PUBLIC');
  return [...new Set(named.map(unquoted))];
}

function unquoted(name: string): string {
  return name.startsWith('"') ? name.slice(1, -1).replaceAll('""', '"') : name;
}

const shownCharsMax = 120;

/** What it creates, without its details: an option may be a password. */
export function describeStatement(statement: string): string {
  const line = statement.replace(/\s+/g, ' ');
  const head = /^[^('$]*/.exec(line)?.[0].trim() ?? '';
  return head.length <= shownCharsMax ? head : `${head.slice(0, shownCharsMax)}…`;
}

const extension = new RegExp(`^CREATE EXTENSION (?:IF NOT EXISTS )?${role}`);

/** The extension that the statement creates; null for any other. */
export function extensionOf(statement: string): string | null {
  const [, name] = extension.exec(statement) ?? [];
  return name === undefined ? null : unquoted(name);
}

/** Whether it may leave a trigger or rule that fires in the applier. */
export function enablesTriggers(statement: string): boolean {
  return /^ALTER TABLE .* ENABLE (?:ALWAYS|REPLICA) (?:TRIGGER|RULE) /s.test(statement);
}

const foreignKey = new RegExp(
  `^ALTER TABLE (?:ONLY )?(${role}\\.${role})\\s+ADD CONSTRAINT ${role} FOREIGN KEY\\b`,
);

/** The foreign key that the statement adds, as `schema.table.constraint`; null for any other. */
export function foreignKeyOf(statement: string): string | null {
  const [, table, , , name] = foreignKey.exec(statement) ?? [];
  return table === undefined || name === undefined ? null : `${table}.${name}`;
}
