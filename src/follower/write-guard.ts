/**
 * Keeps every session but the applier's from writing to a node that follows: triggers on every user
 * table, event triggers against DDL, and the database's default_transaction_read_only, by which
 * clients find the leader. It is changed by a session whose replication role is replica, for which
 * it does not fire. Once armGuard has returned, no transaction of an ordinary session can change a
 * row or a table, however old its snapshot is. No table that another session locks delays the
 * others, and every step may be repeated after a crash.
 */

import { setTimeout as delay } from 'node:timers/promises';
import type { Client } from 'pg';
import { bug } from '../errors/bug.ts';
import { writeGuardTimeout } from '../errors/timed-out.ts';
import { terminateClients, terminateHolders } from './guard/client-sessions.ts';
import { earlierTransactions, limitOf } from './guard/earlier-transactions.ts';
import {
  allowDdl,
  dropDdlGuards,
  readSwitches,
  refuseDdl,
  type Switches,
  setReadOnly,
} from './guard/guard-switches.ts';
import {
  type BusyTable,
  type GuardedTable,
  guardName,
  lockHolders,
  lockPids,
  nameOf,
  readGuardedTables,
  TableChanges,
  truncateGuardName,
} from './guard/guarded-tables.ts';
import {
  dropLostHolds,
  readHeld,
  readToSuspend,
  type StatementsByTable,
} from './schema/suspended-triggers.ts';

/** Between two checks of running transactions, and two rounds over busy tables. */
const pollMs = 50;
/** Transactions of an application are over by then, or the error names them. */
const defaultMaxWaitMs = 30_000;
/** So long clients of a new leader wait for an autovacuum that is being cancelled. */
const openWaitMs = 1_500;

interface GuardOptions {
  /** For all waits together. */
  readonly maxWaitMs?: number;
  readonly now?: () => number;
  readonly sleep?: (ms: number) => Promise<unknown>;
}

interface ArmOptions extends GuardOptions {
  /** Ends the sessions of clients, for a node that led: theirs are older than the settings. */
  readonly terminates?: boolean;
  /** Where it is false, nothing is changed any more, and the call rejects with Unwanted. */
  readonly isWanted?: () => Promise<boolean>;
}

interface GuardState extends Pick<Switches, 'refusesDdl' | 'readOnlyByDefault'> {
  /** Whether nothing is missing. */
  readonly armed: boolean;
  /** `schema.table` of tables whose triggers are missing or disabled. */
  readonly unguarded: readonly string[];
}

export async function guardState(client: Client): Promise<GuardState> {
  const { refusesDdl, readOnlyByDefault, isWhole } = await readSwitches(client);
  const unguarded = (await readGuardedTables(client))
    .filter(isUnguarded)
    .map((table) => `${table.schema}.${table.name}`);
  const armed = refusesDdl && readOnlyByDefault && isWhole && unguarded.length === 0;
  return { armed, refusesDdl, readOnlyByDefault, unguarded };
}

function isUnguarded({ enabled }: GuardedTable): boolean {
  return enabled.length < 2;
}

/**
 * Arms the guard, and gives the sessions that it was to terminate and may not. The order leaves no
 * gap: first new sessions are read-only and DDL is refused, then the older sessions end where they
 * are to. Then the tables get their triggers, each as soon as its lock is free, while every
 * transaction that may have passed the event triggers is awaited; once that is over the tables are
 * listed once more. The mark that says that all is done is last.
 */
export async function armGuard(
  client: Client,
  options: ArmOptions = {},
): Promise<readonly string[]> {
  await requireReplicaRole(client);
  const { terminates = false } = options;
  const wait = new BoundedWait(options);
  const changes = await TableChanges.open(client, options);
  const { refusesDdl, readOnlyByDefault, isWhole } = await readSwitches(client);
  const wasArmed = refusesDdl && readOnlyByDefault && isWhole;
  const refused: string[] = [];
  if (!wasArmed) {
    await setReadOnly(client, changes, 'on');
    await refuseDdl(client, changes);
    if (terminates) refused.push(...(await terminateClients(client)));
  }
  await armAll(client, changes, {
    terminates,
    wait,
    limit: wasArmed ? null : await limitOf(client),
  });
  if (!wasArmed) await setReadOnly(client, changes, 'whole');
  return refused;
}

interface ArmAll {
  readonly terminates: boolean;
  readonly wait: BoundedWait;
  /** Transactions with an id below it are awaited; null is none. */
  readonly limit: string | null;
}

async function armAll(
  client: Client,
  changes: TableChanges,
  { terminates, wait, limit }: ArmAll,
): Promise<void> {
  for (let passed = false; ; ) {
    passed ||= limit === null || (await earlierTransactions(client, limit)).length === 0;
    const [busy] = await armTables(client, changes, terminates);
    if (passed && busy === undefined) return;
    if (!wait.isOver) {
      await wait.pause();
      continue;
    }
    if (busy !== undefined) throw await tableTimeout(client, busy);
    const blockers = await earlierTransactions(client, limit ?? '0');
    throw writeGuardTimeout('transactions that began before it', blockers);
  }
}

/** A round that waits for no lock, and one over the tables that were busy. */
async function armTables(
  client: Client,
  changes: TableChanges,
  terminates: boolean,
): Promise<readonly BusyTable[]> {
  const tables = (await readGuardedTables(client)).filter(isUnguarded);
  const action = 'FOR EACH STATEMENT EXECUTE FUNCTION understudy.refuse_write()';
  // Replacing a trigger also enables it.
  const statements = (table: GuardedTable): readonly string[] => [
    `CREATE OR REPLACE TRIGGER ${guardName}
     BEFORE INSERT OR UPDATE OR DELETE ON ${nameOf(table)} ${action}`,
    `CREATE OR REPLACE TRIGGER ${truncateGuardName}
     BEFORE TRUNCATE ON ${nameOf(table)} ${action}`,
  ];
  let isFirst = true;
  return changes.visit(tables, statements, async (busy) => {
    if (!isFirst) return false;
    isFirst = false;
    const busyTables = busy.map(({ table }) => table);
    if (terminates) await terminateHolders(client, await lockPids(client, busyTables));
    return true;
  });
}

async function tableTimeout(client: Client, { table, refusal }: BusyTable): Promise<Error> {
  const name = `${table.schema}.${table.name}`;
  if (refusal !== null) return writeGuardTimeout(`a change of ${name}`, [refusal]);
  return writeGuardTimeout(`the lock of ${name}`, await lockHolders(client, table));
}

/**
 * Lifts the guard: the triggers stay, disabled, so that re-arming is quick. The triggers and rules
 * that were suspended are restored with it, each table whole. It gives the tables that stay guarded
 * because other sessions lock them; `openTables` is for those, later.
 */
export async function disarmGuard(
  client: Client,
  options: Pick<ArmOptions, 'isWanted'> = {},
): Promise<readonly BusyTable[]> {
  await requireReplicaRole(client);
  const changes = await TableChanges.open(client, options);
  await setReadOnly(client, changes, 'opening');
  const wait = new BoundedWait({ maxWaitMs: openWaitMs });
  const busy = await openTables(client, null, { ...options, wait });
  await allowDdl(client, changes);
  await setReadOnly(client, changes, 'off');
  return busy;
}

interface OpenOptions extends Pick<ArmOptions, 'isWanted'> {
  readonly wait?: BoundedWait;
}

/** Opens these tables, or all of them, and gives those that are still locked. */
export async function openTables(
  client: Client,
  only: readonly BusyTable[] | null,
  { wait = new BoundedWait({ maxWaitMs: openWaitMs }), ...options }: OpenOptions = {},
): Promise<readonly BusyTable[]> {
  const changes = await TableChanges.open(client, options);
  const held = await readHeld(client);
  const chosen = only === null ? null : new Set(only.map(({ table }) => table.oid));
  const tables = (await readGuardedTables(client)).filter((table) => {
    const isClosed = table.enabled.length > 0 || held.has(table.oid);
    return isClosed && (chosen === null || chosen.has(table.oid));
  });
  const statements = (table: GuardedTable): readonly string[] => [
    ...(held.get(table.oid) ?? []),
    ...disabling(table),
  ];
  const busy = await changes.visit(
    tables,
    statements,
    () => mayGoOn(wait),
    () => !wait.isOver,
  );
  if (busy.length === 0) await dropLostHolds(client);
  return busy;
}

/** Both in one command, which rebuilds the table's entry in the caches of all sessions once. */
function disabling(table: GuardedTable): readonly string[] {
  if (table.enabled.length === 0) return [];
  const actions = table.enabled.map((name) => `DISABLE TRIGGER ${name}`);
  return [`ALTER TABLE ONLY ${nameOf(table)} ${actions.join(', ')}`];
}

/** What keeps a table from being open, in one line. */
export async function whyClosed(client: Client, { table, refusal }: BusyTable): Promise<string> {
  const holders = refusal === null ? await lockHolders(client, table) : [];
  const why =
    refusal ?? (holders.length === 0 ? 'its lock was held' : `locked by ${holders.join(', ')}`);
  return `${table.schema}.${table.name} takes no writes yet (${why}): the agent tries again`;
}

/**
 * Suspends the triggers and rules that would fire in the applier, each table whole, once the guard
 * is armed. It waits for locks as armGuard does.
 */
export async function suspendTriggers(client: Client): Promise<void> {
  await runByTable(client, await readToSuspend(client));
}

/** Restores everything as it was, for a database that becomes an ordinary one. */
export async function restoreTriggers(client: Client): Promise<void> {
  await runByTable(client, await readHeld(client));
  await dropLostHolds(client);
}

async function runByTable(client: Client, found: StatementsByTable): Promise<void> {
  if (found.size === 0) return;
  const wait = new BoundedWait({});
  const changes = await TableChanges.open(client);
  const tables = (await readGuardedTables(client)).filter(({ oid }) => found.has(oid));
  const statements = ({ oid }: GuardedTable): readonly string[] => found.get(oid) ?? [];
  const [busy] = await changes.visit(tables, statements, () => mayGoOn(wait));
  if (busy !== undefined) throw await tableTimeout(client, busy);
}

async function mayGoOn(wait: BoundedWait): Promise<boolean> {
  if (wait.isOver) return false;
  await wait.pause();
  return true;
}

/** Removes the guard from the database. */
export async function removeGuard(client: Client, options: GuardOptions = {}): Promise<void> {
  await requireReplicaRole(client);
  const wait = new BoundedWait(options);
  const changes = await TableChanges.open(client);
  await setReadOnly(client, changes, 'opening');
  const tables = (await readGuardedTables(client)).filter(({ present }) => present > 0);
  const statements = (table: GuardedTable): readonly string[] => [
    `DROP TRIGGER IF EXISTS ${guardName} ON ${nameOf(table)}`,
    `DROP TRIGGER IF EXISTS ${truncateGuardName} ON ${nameOf(table)}`,
  ];
  const [busy] = await changes.visit(tables, statements, () => mayGoOn(wait));
  if (busy !== undefined) throw await tableTimeout(client, busy);
  await dropDdlGuards(client, changes);
  await setReadOnly(client, changes, 'off');
}

async function requireReplicaRole(client: Client): Promise<void> {
  const { rows } = await client.query<{ role: string }>(
    `SELECT current_setting('session_replication_role') AS role`,
  );
  if (rows[0]?.role === 'replica') return;
  const message = 'the write guard was switched by a session that it would refuse';
  throw bug(message);
}

/** One deadline for all waits of one call. */
class BoundedWait {
  readonly #now: () => number;
  readonly #sleep: (ms: number) => Promise<unknown>;
  readonly #deadline: number;

  constructor({ maxWaitMs = defaultMaxWaitMs, now = Date.now, sleep = delay }: GuardOptions) {
    this.#now = now;
    this.#sleep = sleep;
    this.#deadline = now() + maxWaitMs;
  }

  get isOver(): boolean {
    return this.#now() >= this.#deadline;
  }

  async pause(): Promise<void> {
    await this.#sleep(pollMs);
  }
}
