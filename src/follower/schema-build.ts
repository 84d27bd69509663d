/**
 * Makes a leader's schema on a follower. Flows in: a schema, and a session of ours under the
 * replica role, which the write guard lets pass; flows out: types, tables and identities
 * (pre-data), later all that rows can do without (post-data). Each statement is run in the
 * transaction that marks it as done, so a kill at any place is followed by the rest, and nothing is
 * run twice.
 *
 * What cannot be made is a clear stop. Only owners and privileges of roles that this server does
 * not have are left out, and told.
 */
import type { Client } from 'pg';
import { inTransaction } from '../catalog/postgres-session.ts';
import type { SchemaPayload } from '../catalog/schema-payload.ts';
import { UnderstudyError } from '../errors.ts';
import { hit } from '../failpoints.ts';
import { holdTriggersHere } from './held-triggers.ts';
import {
  type BuildPhase,
  type BuildStep,
  buildSteps,
  describeStatement,
  enablesTriggers,
  extensionOf,
  rolesOf,
} from './schema-plan.ts';

export interface BuildProgress {
  readonly phase: BuildPhase;
  readonly done: number;
  readonly total: number;
}

export interface BuildOptions {
  readonly node: string;
  /** After every statement. */
  readonly onProgress: (progress: BuildProgress) => void;
  /** Once per phase, with every role because of which something was left out. */
  readonly onMissingRoles: (roles: readonly string[]) => void;
  readonly nowMs: () => number;
  readonly sleep: (ms: number) => Promise<void>;
  /** Between two statements. */
  readonly signal?: AbortSignal;
  /** The caller's, in a database that nobody uses yet: all is built in it, or nothing. */
  readonly inOpenTransaction?: boolean;
}

interface OpenStep extends BuildStep {
  readonly ordinal: number;
}

/** Readers of a table queue up behind a lock that is waited for: it waits briefly and often. */
const lockTimeoutMs = 2_000;
const lockPauseMs = 250;
/** Whoever holds a table for longer than this has to be looked at. */
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

/** Builds what is left of the post-data; nothing where nothing is. */
export async function buildPostData(client: Client, options: BuildOptions): Promise<void> {
  const open = await openBuild(client);
  if (open?.phase === 'pre-data') {
    throw new UnderstudyError(
      'SCHEMA_BUILD_FAILED',
      `the tables of node ${options.node} were not all made: ${open.done} of ${open.total}`,
      'Make its database anew, and add the node again.',
    );
  }
  if (open !== null) await runPhase(client, 'post-data', options);
}

/** What of the schema is not built yet; null where all is, or where nothing was to be. */
export async function openBuild(client: Client): Promise<BuildProgress | null> {
  const { rows } = await client.query<{ phase: BuildPhase; done: string; total: string }>(
    `SELECT phase, count(*) FILTER (WHERE done) AS done, count(*) AS total
     FROM understudy.schema_build GROUP BY phase ORDER BY phase DESC`,
  );
  const open = rows
    .map(({ phase, done, total }) => ({ phase, done: Number(done), total: Number(total) }))
    .find(({ done, total }) => done < total);
  return open ?? null;
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
  throw new UnderstudyError(
    'SCHEMA_BUILD_FAILED',
    `another schema than this was begun on node ${node}`,
    'Make its database anew, and add the node again.',
  );
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
    const step = { phase, ordinal: Number(ordinal), statement, settings: open };
    if (!(await runStep(client, step, options))) return;
    left -= 1;
    options.onProgress({ phase, done: total - left, total });
    await hit('schema.after-statement');
  }
  await tellMissingRoles(client, phase, options);
}

async function tellMissingRoles(
  client: Client,
  phase: BuildPhase,
  { onMissingRoles }: BuildOptions,
): Promise<void> {
  const { rows } = await client.query<{ role: string }>(
    `SELECT DISTINCT unnest(missing_roles) AS role FROM understudy.schema_build
     WHERE phase = $1 ORDER BY role`,
    [phase],
  );
  if (rows.length > 0) onMissingRoles(rows.map(({ role }) => role));
}

const lockNotAvailable = '55P03';
const deadlockDetected = '40P01';
const undefinedObject = '42704';
/** What SET SESSION AUTHORIZATION says of a role that does not exist. */
const invalidParameter = '22023';

/** False when it was told to stop. */
async function runStep(client: Client, step: OpenStep, options: BuildOptions): Promise<boolean> {
  const sinceMs = options.nowMs();
  while (options.signal?.aborted !== true) {
    try {
      await attempt(client, step, options);
      return true;
    } catch (error) {
      const code = sqlStateOf(error);
      const isWaiting = code === lockNotAvailable || code === deadlockDetected;
      if (options.inOpenTransaction === true || !isWaiting)
        throw refused(step, options.node, error);
      if (options.nowMs() - sinceMs > lockMaxMs) throw held(step, options.node, error);
    }
    await options.sleep(lockPauseMs);
  }
  return false;
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

/** The roles because of which it could not be run; null where it was. */
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

/** Marked first: the settings may take our own rights away until the end of the transaction. */
async function runHere(client: Client, step: OpenStep): Promise<void> {
  const { rowCount } = await client.query(
    'UPDATE understudy.schema_build SET done = true WHERE ordinal = $1 AND NOT done',
    [step.ordinal],
  );
  if (rowCount !== 1) return;
  await client.query(
    `SET LOCAL lock_timeout = ${lockTimeoutMs};
     SET LOCAL client_connection_check_interval = ${connectionCheckMs};
     SET LOCAL check_function_bodies = off`,
  );
  for (const setting of step.settings) await client.query(setting);
  await client.query(step.statement);
  if (enablesTriggers(step.statement)) await holdTriggersHere(client);
  // In a transaction of many statements the next ones are ours again.
  if (step.settings.length > 0) await client.query('RESET SESSION AUTHORIZATION');
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

function sqlStateOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : '';
}

function held(step: OpenStep, node: string, cause: unknown): UnderstudyError {
  return new UnderstudyError(
    'TIMED_OUT',
    `${describeStatement(step.statement)} waited too long for a lock on node ${node}`,
    'End the transactions that hold it: see pg_stat_activity and pg_locks there.',
    cause,
  );
}

const connectionStates = /^(?:|08...|57P0[123])$/;

/** A connection that died says nothing of the statement. */
function refused({ statement }: OpenStep, node: string, error: unknown): unknown {
  const code = sqlStateOf(error);
  if (error instanceof UnderstudyError || connectionStates.test(code)) return error;
  const reason = error instanceof Error ? (error.message.split('\n', 1)[0] ?? '') : String(error);
  const what = describeStatement(statement);
  return new UnderstudyError(
    'SCHEMA_BUILD_FAILED',
    `node ${node} refuses ${what}: ${reason}`,
    buildHint(statement, code, node),
    error,
  );
}

const duplicates = ['42710', '42P07', '42P06', '42723', '42P04'];

function buildHint(statement: string, code: string, node: string): string {
  const extension = extensionOf(statement);
  if (extension !== null && code !== '42501') {
    return (
      `Install the extension ${extension} on the server of node ${node} (those of PostgreSQL are ` +
      `in the package postgresql-contrib, others in their own, such as postgresql-18-${extension}` +
      '), then try again.'
    );
  }
  if (code === '42501') {
    return `Give the role of the URL of node ${node} that right, or let a superuser build there.`;
  }
  if (code === undefinedObject) {
    return `Make on the server of node ${node} what is missing, then try again.`;
  }
  if (duplicates.includes(code)) {
    return `Drop it on node ${node}, or make that database anew: it has to be empty for this.`;
  }
  return `Remove the cause on node ${node}, then try again: what was built stays.`;
}
