/**
 * Keeps every session but the applier's from writing to a node that follows: triggers on every user
 * table, an event trigger against DDL, and the database's default_transaction_read_only, by which
 * clients find the leader. It is armed by a session whose replication role is replica, for which it
 * does not fire. Once armGuard has returned, no transaction of an ordinary session can change a row
 * or a table, however old its snapshot is. Every step may be repeated after a crash.
 */

import { setTimeout as delay } from 'node:timers/promises';
import type { Client } from 'pg';
import { inTransaction, qualifiedName, quoteIdentifier } from '../catalog/postgres-session.ts';
import { userTablesCondition } from '../catalog/read-catalog.ts';
import { noteWatchedSince } from '../catalog/understudy-schema.ts';
import { bug } from '../errors/bug.ts';
import { watchTriggerMissing } from '../errors/prerequisite.ts';
import { writeGuardTimeout } from '../errors/timed-out.ts';

const guardName = 'understudy_guard';
const truncateGuardName = 'understudy_guard_truncate';
/**
 * DDL is refused at the start of a command, and at its end for sessions that had not read
 * the first trigger: see understudy.watch_ddl in schemas/sql.
 */
const ddlGuards = [
  { name: guardName, event: 'ddl_command_start' },
  { name: 'understudy_guard_end', event: 'ddl_command_end' },
] as const;

/** A writer that waits behind our lock request waits no longer than this. */
const lockTimeoutMs = 1_000;
/** Between two checks of running transactions; writers proceed between two lock requests. */
const pollMs = 50;
/** Transactions of an application are over by then, or the error names them. */
const defaultMaxWaitMs = 30_000;

interface GuardOptions {
  /** For all waits together. */
  readonly maxWaitMs?: number;
  readonly now?: () => number;
  readonly sleep?: (ms: number) => Promise<unknown>;
}

interface GuardState {
  /** Whether nothing is missing. */
  readonly armed: boolean;
  readonly refusesDdl: boolean;
  readonly readOnlyByDefault: boolean;
  /** `schema.table` of tables whose triggers are missing or disabled. */
  readonly unguarded: readonly string[];
}

interface GuardedTable {
  readonly oid: string;
  readonly schema: string;
  readonly name: string;
  /** How many of the two triggers exist, and how many are enabled. */
  readonly present: number;
  readonly enabled: number;
}

/** The labels of points are guarded too: only the leader creates points. */
async function readGuardedTables(client: Client): Promise<GuardedTable[]> {
  const { rows } = await client.query<Record<string, string>>(
    `SELECT c.oid, n.nspname AS schema, c.relname AS name,
            count(t.oid) AS present, count(t.oid) FILTER (WHERE t.tgenabled = 'O') AS enabled
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     LEFT JOIN pg_trigger t ON t.tgrelid = c.oid AND t.tgname = ANY ($1)
     WHERE ${userTablesCondition} OR c.oid = to_regclass('understudy.points')
     GROUP BY c.oid, n.nspname, c.relname
     ORDER BY n.nspname, c.relname`,
    [[guardName, truncateGuardName]],
  );
  return rows.map((row) => ({
    oid: row.oid ?? '',
    schema: row.schema ?? '',
    name: row.name ?? '',
    present: Number(row.present),
    enabled: Number(row.enabled),
  }));
}

type Switches = Pick<GuardState, 'refusesDdl' | 'readOnlyByDefault'>;

async function readSwitches(client: Client): Promise<Switches> {
  const { rows } = await client.query<Record<string, string>>(
    `SELECT (SELECT count(*) FROM pg_event_trigger
             WHERE evtname = ANY ($1) AND evtenabled = 'O') AS enabled,
            EXISTS (SELECT FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
                    WHERE d.datname = current_database() AND s.setrole = 0
                      AND 'default_transaction_read_only=on' = ANY (s.setconfig)) AS read_only`,
    [ddlGuards.map((guard) => guard.name)],
  );
  return {
    refusesDdl: Number(rows[0]?.enabled) === ddlGuards.length,
    readOnlyByDefault: rows[0]?.read_only === 't',
  };
}

export async function guardState(client: Client): Promise<GuardState> {
  const { refusesDdl, readOnlyByDefault } = await readSwitches(client);
  const unguarded = (await readGuardedTables(client))
    .filter((table) => table.enabled < 2)
    .map((table) => `${table.schema}.${table.name}`);
  const armed = refusesDdl && readOnlyByDefault && unguarded.length === 0;
  return { armed, refusesDdl, readOnlyByDefault, unguarded };
}

/**
 * Arms the guard. The order leaves no gap: first DDL is refused, then every transaction that may
 * have passed before that is awaited, then the tables are listed once more. The database's setting
 * is last, so it also records that everything before it is done.
 */
export async function armGuard(client: Client, options: GuardOptions = {}): Promise<void> {
  await requireReplicaRole(client);
  const wait = new BoundedWait(options);
  const { refusesDdl, readOnlyByDefault } = await readSwitches(client);
  if (refusesDdl && readOnlyByDefault) {
    await armTables(client, wait);
    return;
  }
  await inTransaction(client, async () => {
    await setReadOnly(client, false);
    for (const { name, event } of ddlGuards) {
      if (!(await hasEventTrigger(client, name))) {
        await client.query(
          `CREATE EVENT TRIGGER ${name} ON ${event} EXECUTE FUNCTION understudy.refuse_ddl()`,
        );
      }
      await client.query(`ALTER EVENT TRIGGER ${name} ENABLE`);
    }
  });
  // The tables that are known are guarded at once; the wait below may take long.
  await armTables(client, wait);
  await waitForEarlier(client, wait);
  await armTables(client, wait);
  await setReadOnly(client, true);
}

async function hasEventTrigger(client: Client, name: string): Promise<boolean> {
  const found = await client.query('SELECT FROM pg_event_trigger WHERE evtname = $1', [name]);
  return found.rowCount === 1;
}

/** Lifts the guard: the triggers stay, disabled, so that re-arming is quick. */
export async function disarmGuard(client: Client, options: GuardOptions = {}): Promise<void> {
  await requireReplicaRole(client);
  const wait = new BoundedWait(options);
  for (const table of await readGuardedTables(client)) {
    if (table.enabled === 0) continue;
    await changeTable(client, wait, table, [
      `ALTER TABLE ONLY ${nameOf(table)} DISABLE TRIGGER ${guardName}`,
      `ALTER TABLE ONLY ${nameOf(table)} DISABLE TRIGGER ${truncateGuardName}`,
    ]);
  }
  await inTransaction(client, async () => {
    for (const { name } of ddlGuards) {
      if (!(await hasEventTrigger(client, name))) continue;
      await client.query(`ALTER EVENT TRIGGER ${name} DISABLE`);
    }
    await setReadOnly(client, false);
  });
}

/** Removes the guard from the database. */
export async function removeGuard(client: Client, options: GuardOptions = {}): Promise<void> {
  await requireReplicaRole(client);
  const wait = new BoundedWait(options);
  for (const table of await readGuardedTables(client)) {
    if (table.present === 0) continue;
    await changeTable(client, wait, table, [
      `DROP TRIGGER IF EXISTS ${guardName} ON ${nameOf(table)}`,
      `DROP TRIGGER IF EXISTS ${truncateGuardName} ON ${nameOf(table)}`,
    ]);
  }
  await inTransaction(client, async () => {
    for (const { name } of ddlGuards) await client.query(`DROP EVENT TRIGGER IF EXISTS ${name}`);
    await setReadOnly(client, false);
  });
}

async function requireReplicaRole(client: Client): Promise<void> {
  const { rows } = await client.query<{ role: string }>(
    `SELECT current_setting('session_replication_role') AS role`,
  );
  if (rows[0]?.role === 'replica') return;
  const message = 'the write guard was switched by a session that it would refuse';
  throw bug(message);
}

async function setReadOnly(client: Client, on: boolean): Promise<void> {
  const { rows } = await client.query<{ name: string }>('SELECT current_database() AS name');
  const database = quoteIdentifier(rows[0]?.name ?? '');
  const setting = 'default_transaction_read_only';
  await client.query(
    `ALTER DATABASE ${database} ${on ? `SET ${setting} = on` : `RESET ${setting}`}`,
  );
}

async function armTables(client: Client, wait: BoundedWait): Promise<void> {
  for (const table of await readGuardedTables(client)) {
    if (table.enabled === 2) continue;
    const action = 'FOR EACH STATEMENT EXECUTE FUNCTION understudy.refuse_write()';
    // Replacing a trigger also enables it.
    await changeTable(client, wait, table, [
      `CREATE OR REPLACE TRIGGER ${guardName}
       BEFORE INSERT OR UPDATE OR DELETE ON ${nameOf(table)} ${action}`,
      `CREATE OR REPLACE TRIGGER ${truncateGuardName}
       BEFORE TRUNCATE ON ${nameOf(table)} ${action}`,
    ]);
  }
}

function nameOf(table: GuardedTable): string {
  return qualifiedName(table.schema, table.name);
}

const lockNotAvailable = '55P03';
const undefinedTable = '42P01';

/**
 * Changes one table in one transaction. Writers hold a lock that ours has to wait for, and while it
 * waits new writers queue behind it: so it waits briefly and often, and its error names the
 * holders.
 */
async function changeTable(
  client: Client,
  wait: BoundedWait,
  table: GuardedTable,
  statements: readonly string[],
): Promise<void> {
  for (;;) {
    try {
      await inTransaction(client, async () => {
        await client.query(`SET LOCAL lock_timeout = ${lockTimeoutMs}`);
        for (const statement of statements) await client.query(statement);
      });
      return;
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? error.code : undefined;
      // Dropped or renamed meanwhile: the list is read again once DDL is refused.
      if (code === undefinedTable) return;
      if (code !== lockNotAvailable) throw error;
      await wait.pause(async () => ({
        what: `the lock of ${table.schema}.${table.name}`,
        blockers: await lockHolders(client, table),
      }));
    }
  }
}

/** The sessions that hold a lock on the table which conflicts with SHARE ROW EXCLUSIVE. */
async function lockHolders(client: Client, table: GuardedTable): Promise<string[]> {
  const { rows } = await client.query<{ who: string }>(
    `SELECT DISTINCT coalesce('pid ' || l.pid || coalesce(' of ' || a.usename, ''),
              'a prepared transaction, see pg_prepared_xacts') AS who
     FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
     WHERE l.locktype = 'relation' AND l.relation = $1 AND l.granted
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND l.mode NOT IN ('AccessShareLock', 'RowShareLock')`,
    [table.oid],
  );
  return rows.map((row) => row.who);
}

/**
 * Waits until every transaction is over that may have run DDL past the event triggers. Such a
 * transaction has an id below the limit that is read here, whose snapshot is newer than the commit
 * that enabled them: a command that ends later runs them, and is refused at its end. Only a
 * transaction older than understudy_watch does not, so those are awaited too.
 */
async function waitForEarlier(client: Client, wait: BoundedWait): Promise<void> {
  const limits = await client.query<{ xmax: string }>(
    'SELECT pg_snapshot_xmax(pg_current_snapshot()) AS xmax',
  );
  const limit = limits.rows[0]?.xmax ?? '';
  await requireWatch(client);
  for (;;) {
    const { rows } = await client.query<{ passed: string; older: string }>(
      `SELECT pg_snapshot_xmin(pg_current_snapshot()) >= $1::xid8 AS passed,
              (SELECT count(*) FROM (${unwatchedQuery}) AS u) AS older`,
      [limit],
    );
    if (rows[0]?.passed === 't' && rows[0].older === '0') return;
    await wait.pause(async () => ({
      what: 'transactions that began before it',
      blockers: await earlierTransactions(client, limit),
    }));
  }
}

async function requireWatch(client: Client): Promise<void> {
  const { rows } = await client.query<{ enabled: string }>(
    `SELECT evtenabled AS enabled FROM pg_event_trigger WHERE evtname = 'understudy_watch'`,
  );
  if (rows[0]?.enabled !== 'O') throw watchTriggerMissing();
  await noteWatchedSince(client);
}

const unwatchedQuery = `
  SELECT 'pid ' || a.pid || ' of ' || a.usename AS who
  FROM pg_stat_activity a
  WHERE a.datname = current_database() AND a.backend_type = 'client backend'
    AND a.pid <> pg_backend_pid()
    AND a.xact_start <= (SELECT n.watched_since FROM understudy.node n)`;

async function earlierTransactions(client: Client, limit: string): Promise<string[]> {
  const { rows } = await client.query<{ who: string }>(
    `${unwatchedQuery}
     UNION
     SELECT 'pid ' || a.pid || ' of ' || a.usename || ' in ' || a.datname
     FROM pg_stat_activity a
     WHERE a.pid <> pg_backend_pid() AND age(a.backend_xid) > age($1::xid8::xid)
     UNION
     SELECT 'the prepared transaction ' || quote_literal(gid) || ' in ' || database
     FROM pg_prepared_xacts WHERE age(transaction) > age($1::xid8::xid)`,
    [limit],
  );
  return rows.map((row) => row.who);
}

/** One deadline for all waits of one call; past it the error names what is waited for. */
class BoundedWait {
  readonly #now: () => number;
  readonly #sleep: (ms: number) => Promise<unknown>;
  readonly #deadline: number;

  constructor({ maxWaitMs = defaultMaxWaitMs, now = Date.now, sleep = delay }: GuardOptions) {
    this.#now = now;
    this.#sleep = sleep;
    this.#deadline = now() + maxWaitMs;
  }

  async pause(describe: () => Promise<{ what: string; blockers: string[] }>): Promise<void> {
    if (this.#now() < this.#deadline) {
      await this.#sleep(pollMs);
      return;
    }
    const { what, blockers } = await describe();
    throw writeGuardTimeout(what, blockers);
  }
}
