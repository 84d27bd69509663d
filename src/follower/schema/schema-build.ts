/**
 * Builds a leader's schema on a follower. Flows in: a schema, and a session of ours under the
 * replica role, which the write guard lets pass; flows out: types, tables and identities
 * (pre-data), later everything that rows can do without (post-data). Each statement is run in the
 * transaction that records it as done, so the next start continues after a kill, and no statement
 * is run twice.
 *
 * A refused statement that rows need is a clear stop. One that they can do without is kept with
 * its reason, the rest is built, and it is retried. Owners and privileges of roles that this
 * server does not have are left out and reported. A foreign key that rows here do not fulfil,
 * because what they refer to is not in the stream, is created NOT VALID and reported.
 */
import type { Client } from 'pg';
import type { SchemaPayload } from '../../catalog/dump/schema-payload.ts';
import { inTransaction } from '../../catalog/postgres-session.ts';
import { otherSchemaBegun, StatementRefused, tablesUnfinished } from '../../errors/row.ts';
import { hit } from '../../failpoints.ts';
import {
  actsAsOther,
  type BuildPhase,
  type BuildStep,
  buildSteps,
  describeStatement,
  enablesTriggers,
  foreignKeyOf,
  rolesOf,
} from './schema-plan.ts';
import { lockTimeout, refusalOf, sqlStateOf } from './schema-refusal.ts';
import { suspendTriggersHere } from './suspended-triggers.ts';

export interface BuildProgress {
  readonly phase: BuildPhase;
  readonly done: number;
  readonly total: number;
}

/** A statement that this node's Postgres refuses. */
export interface Refusal {
  /** What it would create: `CREATE INDEX i ON public.t`. */
  readonly what: string;
  readonly reason: string;
}

export interface OpenBuild extends BuildProgress {
  readonly refused: readonly Refusal[];
}

export interface BuildOptions {
  readonly node: string;
  /** After every statement. */
  readonly onProgress: (progress: BuildProgress) => void;
  /** Once per phase, with every role because of which something was left out. */
  readonly onMissingRoles: (roles: readonly string[]) => void;
  /** Once per phase, with every foreign key that could only be created NOT VALID. */
  readonly onNotValid: (foreignKeys: readonly string[]) => void;
  readonly nowMs: () => number;
  readonly sleep: (ms: number) => Promise<void>;
  /** Between two statements. */
  readonly signal?: AbortSignal;
  /** The caller's, in a database that has no users yet: all is built in it, or nothing. */
  readonly inOpenTransaction?: boolean;
  /** A refused statement is kept with its reason, and the next one is run. */
  readonly keepsRefusals?: boolean;
}

interface OpenStep extends BuildStep {
  readonly ordinal: number;
  /** A foreign key whose rows are not checked. */
  readonly notValid: boolean;
}

/** Readers of a table queue behind a lock request that waits: it waits briefly and often. */
const lockTimeoutMs = 2_000;
const lockPauseMs = 250;
/** A transaction that locks a table for longer than this needs a person. */
const lockMaxMs = 10 * 60_000;
/** A statement of minutes is ended soon after the agent that ran it. */
const connectionCheckMs = 5_000;

/** Builds what is left of the phase; on an empty follower that is all of it. */
export async function buildFromSchema(
  client: Client,
  schema: SchemaPayload,
  phase: BuildPhase,
  options: BuildOptions,
): Promise<void> {
  const plan = (): Promise<void> => planSteps(client, buildSteps(schema), options.node);
  await (options.inOpenTransaction === true ? plan() : inTransaction(client, plan));
  await runPhase(client, phase, options);
}

/** Builds what is left of the post-data, if anything. */
export async function buildPostData(client: Client, options: BuildOptions): Promise<void> {
  const open = await openBuild(client);
  if (open?.phase === 'pre-data') throw tablesUnfinished(options.node, open.done, open.total);
  if (open !== null) await runPhase(client, 'post-data', options);
}

/** The same, but continues after a refused statement; gives what is left then. */
export async function tryPostData(
  client: Client,
  options: BuildOptions,
): Promise<OpenBuild | null> {
  await buildPostData(client, { ...options, keepsRefusals: true });
  return openBuild(client);
}

/** The part of the schema that is not built yet; null where all is, or none was to be built. */
export async function openBuild(client: Client): Promise<OpenBuild | null> {
  const { rows } = await client.query<{
    phase: BuildPhase;
    done: string;
    total: string;
    refused: string;
  }>(
    `SELECT phase, count(*) FILTER (WHERE done) AS done, count(*) AS total,
       coalesce(json_agg(json_build_array(statement, refused) ORDER BY ordinal)
         FILTER (WHERE NOT done AND refused IS NOT NULL), '[]') AS refused
     FROM understudy.schema_build GROUP BY phase ORDER BY phase DESC`,
  );
  const open = rows.find(({ done, total }) => Number(done) < Number(total));
  if (open === undefined) return null;
  const refused = (JSON.parse(open.refused) as [string, string][]).map(([statement, reason]) => ({
    what: describeStatement(statement),
    reason,
  }));
  return { phase: open.phase, done: Number(open.done), total: Number(open.total), refused };
}

async function planSteps(client: Client, steps: readonly BuildStep[], node: string): Promise<void> {
  const { rows } = await client.query<{ statement: string }>(
    'SELECT statement FROM understudy.schema_build ORDER BY ordinal',
  );
  if (rows.length === 0) {
    await client.query(
      `INSERT INTO understudy.schema_build (ordinal, phase, statement, settings)
       SELECT x.ordinal, x.phase, x.statement, ARRAY(SELECT json_array_elements_text(x.settings))
       FROM json_to_recordset($1) AS x
         (ordinal int, phase text, statement text, settings json)`,
      [JSON.stringify(steps.map((step, ordinal) => ({ ...step, ordinal })))],
    );
    return;
  }
  const isSame = rows.length === steps.length;
  if (isSame && rows.every(({ statement }, at) => statement === steps[at]?.statement)) return;
  throw otherSchemaBegun(node);
}

async function runPhase(client: Client, phase: BuildPhase, options: BuildOptions): Promise<void> {
  const { rows } = await client.query<{ ordinal: string; statement: string; settings: string }>(
    `SELECT ordinal, statement, array_to_json(settings) AS settings
     FROM understudy.schema_build WHERE phase = $1 AND NOT done ORDER BY ordinal`,
    [phase],
  );
  const { rows: counts } = await client.query<{ total: string }>(
    'SELECT count(*) AS total FROM understudy.schema_build WHERE phase = $1',
    [phase],
  );
  const total = Number(counts[0]?.total);
  let left = rows.length;
  for (const { ordinal, statement, settings } of rows) {
    const open = JSON.parse(settings) as readonly string[];
    const step = { phase, ordinal: Number(ordinal), statement, settings: open, notValid: false };
    const end = await runOrKeep(client, step, options);
    if (end === 'stopped') return;
    if (end === 'refused') continue;
    left -= 1;
    options.onProgress({ phase, done: total - left, total });
    await hit('schema.after-statement');
  }
  await reportLeftOut(client, phase, options);
}

async function reportLeftOut(
  client: Client,
  phase: BuildPhase,
  { onMissingRoles, onNotValid }: BuildOptions,
): Promise<void> {
  const { rows } = await client.query<{ role: string }>(
    `SELECT DISTINCT unnest(missing_roles) AS role FROM understudy.schema_build
     WHERE phase = $1 ORDER BY role`,
    [phase],
  );
  if (rows.length > 0) onMissingRoles(rows.map(({ role }) => role));
  const foreignKeys = phase === 'post-data' ? await notValidForeignKeys(client) : [];
  if (foreignKeys.length > 0) onNotValid(foreignKeys);
}

/** Those that were created NOT VALID here and still are, as `schema.table.constraint`. */
export async function notValidForeignKeys(client: Client): Promise<string[]> {
  const { rows } = await client.query<{ statement: string }>(
    'SELECT statement FROM understudy.schema_build WHERE not_valid ORDER BY ordinal',
  );
  const created = rows.flatMap(({ statement }) => foreignKeyOf(statement) ?? []);
  if (created.length === 0) return [];
  const { rows: left } = await client.query<{ name: string }>(
    `SELECT name FROM pg_catalog.pg_constraint c
     JOIN pg_catalog.pg_class t ON t.oid = c.conrelid
     JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
     CROSS JOIN format('%I.%I.%I', n.nspname, t.relname, c.conname) AS name
     WHERE c.contype = 'f' AND NOT c.convalidated AND name = ANY ($1) ORDER BY name`,
    [created],
  );
  return left.map(({ name }) => name);
}

type StepEnd = 'done' | 'refused' | 'stopped';

async function runOrKeep(client: Client, step: OpenStep, options: BuildOptions): Promise<StepEnd> {
  try {
    return await runStep(client, step, options);
  } catch (error) {
    if (options.keepsRefusals !== true || !(error instanceof StatementRefused)) throw error;
    await client.query('UPDATE understudy.schema_build SET refused = $2 WHERE ordinal = $1', [
      step.ordinal,
      error.reason,
    ]);
    return 'refused';
  }
}

/** SET SESSION AUTHORIZATION to a role that does not exist, and a privilege for one. */
const invalidParameter = '22023';
const undefinedObject = '42704';
const lockNotAvailable = '55P03';
const deadlockDetected = '40P01';
const foreignKeyViolation = '23503';

async function runStep(client: Client, step: OpenStep, options: BuildOptions): Promise<StepEnd> {
  const sinceMs = options.nowMs();
  let running = step;
  let violation: unknown = null;
  while (options.signal?.aborted !== true) {
    try {
      await attempt(client, running, options);
      return 'done';
    } catch (error) {
      const code = sqlStateOf(error);
      const isWaiting = code === lockNotAvailable || code === deadlockDetected;
      const isViolated = code === foreignKeyViolation && foreignKeyOf(step.statement) !== null;
      if (options.inOpenTransaction === true) throw refusalOf(step.statement, options.node, error);
      if (isViolated && !running.notValid) {
        running = { ...step, statement: `${step.statement} NOT VALID`, notValid: true };
        violation = error;
        continue;
      }
      // Before PostgreSQL 18 a partitioned table has no such key: then the rows are the reason.
      if (!isWaiting) throw refusalOf(step.statement, options.node, violation ?? error);
      if (options.nowMs() - sinceMs > lockMaxMs)
        throw lockTimeout(step.statement, options.node, error);
    }
    await options.sleep(lockPauseMs);
  }
  return 'stopped';
}

async function attempt(client: Client, step: OpenStep, options: BuildOptions): Promise<void> {
  const roles = rolesOf(step);
  if (options.inOpenTransaction !== true) {
    const missing = roles === null ? null : await runUnlessMissing(client, step, roles);
    if (roles === null) await inTransaction(client, () => runHere(client, step));
    else if (missing !== null) await inTransaction(client, () => leaveOut(client, step, missing));
    return;
  }
  if (roles === null) return runHere(client, step);
  await client.query('SAVEPOINT before_roles');
  try {
    await runHere(client, step);
  } catch (error) {
    await client.query('ROLLBACK TO SAVEPOINT before_roles');
    await leaveOut(client, step, await missingRoles(client, roles, error));
  }
  await client.query('RELEASE SAVEPOINT before_roles');
}

/** The missing roles because of which it could not be run; null where it was run. */
async function runUnlessMissing(
  client: Client,
  step: OpenStep,
  roles: readonly string[],
): Promise<readonly string[] | null> {
  try {
    await inTransaction(client, () => runHere(client, step));
    return null;
  } catch (error) {
    return missingRoles(client, roles, error);
  }
}

/** Rethrows what has another reason than a role that does not exist. */
async function missingRoles(
  client: Client,
  roles: readonly string[],
  error: unknown,
): Promise<readonly string[]> {
  if (![undefinedObject, invalidParameter].includes(sqlStateOf(error))) throw error;
  const { rows } = await client.query<{ role: string }>(
    `SELECT wanted.role FROM unnest($1::text[]) AS wanted (role)
     WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = wanted.role)`,
    [roles],
  );
  if (rows.length === 0) throw error;
  return rows.map(({ role }) => role);
}

/** Recorded first: the settings may take our own rights away until the transaction ends. */
async function runHere(client: Client, step: OpenStep): Promise<void> {
  const { rowCount } = await client.query(
    `UPDATE understudy.schema_build SET done = true, refused = NULL, not_valid = $2
     WHERE ordinal = $1 AND NOT done`,
    [step.ordinal, step.notValid],
  );
  if (rowCount !== 1) return;
  // The statement is last: it may end in a comment.
  const settings = [
    `SET LOCAL lock_timeout = ${lockTimeoutMs}`,
    `SET LOCAL client_connection_check_interval = ${connectionCheckMs}`,
    'SET LOCAL check_function_bodies = off',
    ...step.settings,
  ];
  await client.query([...settings, step.statement].join(';\n'));
  if (enablesTriggers(step.statement)) await suspendTriggersHere(client);
  // In a transaction of many statements the next ones are ours again.
  if (actsAsOther(step.settings)) await client.query('RESET SESSION AUTHORIZATION');
}

async function leaveOut(
  client: Client,
  { ordinal }: OpenStep,
  roles: readonly string[],
): Promise<void> {
  await client.query(
    'UPDATE understudy.schema_build SET done = true, missing_roles = $2 WHERE ordinal = $1',
    [ordinal, roles],
  );
}
