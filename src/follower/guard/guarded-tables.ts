/**
 * The tables that the write guard covers, and how they are changed one by one. It takes a session
 * of the replica role and the statements that change a table; it visits tables in the order of
 * table-visits.ts, and gives those that could not be changed, each with the reason. A table is
 * changed whole or not at all. For a session of ours that waits, Postgres cancels an autovacuum.
 */
import { type Client, DatabaseError } from 'pg';
import { inTransaction, qualifiedName, sessionText } from '../../catalog/postgres-session.ts';
import { userTablesCondition } from '../../catalog/read-catalog.ts';
import { TableVisits } from './table-visits.ts';

export const guardName = 'understudy_guard';
export const truncateGuardName = 'understudy_guard_truncate';

export interface GuardedTable {
  readonly oid: string;
  readonly schema: string;
  readonly name: string;
  /** How many of the two triggers exist. */
  readonly present: number;
  /** The names of those that are enabled. */
  readonly enabled: readonly string[];
}

/** The labels of points are guarded too: only the leader creates points. */
export async function readGuardedTables(client: Client): Promise<GuardedTable[]> {
  const { rows } = await client.query<Record<string, string | null>>(
    `SELECT c.oid, n.nspname AS schema, c.relname AS name,
            count(t.oid) AS present,
            string_agg(t.tgname, ' ') FILTER (WHERE t.tgenabled = 'O') AS enabled
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
    enabled: (row.enabled ?? '').split(' ').filter((trigger) => trigger !== ''),
  }));
}

/** Of a leader: tables that take no writes yet, because their lock was not free. */
export async function readClosedTables(client: Client): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT DISTINCT n.nspname || '.' || c.relname AS name
     FROM pg_catalog.pg_trigger t
     JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE t.tgname = ANY ($1) AND t.tgenabled = 'O' ORDER BY 1`,
    [[guardName, truncateGuardName]],
  );
  return rows.map(({ name }) => name);
}

export function nameOf(table: Pick<GuardedTable, 'schema' | 'name'>): string {
  return qualifiedName(table.schema, table.name);
}

/** Why a table could not be changed yet. */
export interface BusyTable {
  readonly table: GuardedTable;
  /** What Postgres said; null where other sessions hold its lock. */
  readonly refusal: string | null;
}

interface ChangeOptions {
  /** Checked at the begin of each transaction: where it is false, nothing is changed any more. */
  readonly isWanted?: () => Promise<boolean>;
}

/** Thrown when the change is not wanted any more; nothing of the present table was changed. */
export class Unwanted extends Error {}

/** How soon Postgres looks whether an autovacuum is in the way, where we may set that. */
const deadlockTimeoutMs = 100;
/** An autovacuum that was cancelled releases its locks within that time. */
const afterCancelMs = 400;
/** A visit that does not wait. */
const noWaitMs = 1;

const lockNotAvailable = '55P03';
const deadlockDetected = '40P01';
/** Dropped or renamed meanwhile: once DDL is refused, the tables are listed again. */
const goneStates = ['42P01', '3F000'];

export class TableChanges {
  /** Whether the `understudy` schema is there. */
  readonly isInstalled: boolean;
  readonly #client: Client;
  readonly #isWanted: () => Promise<boolean>;
  readonly #mayLower: boolean;
  readonly #lockTimeoutMs: number;
  readonly #refusals = new Map<string, string>();

  private constructor(
    client: Client,
    { isWanted = async () => true }: ChangeOptions,
    facts: Readonly<Record<string, string | null>>,
  ) {
    this.#client = client;
    this.#isWanted = isWanted;
    this.#mayLower = facts.may === 't';
    this.isInstalled = facts.node !== null;
    // A lock_timeout below the deadlock_timeout would end the wait before the autovacuum.
    const checkMs = this.#mayLower ? deadlockTimeoutMs : Number(facts.check_ms);
    this.#lockTimeoutMs = checkMs + afterCancelMs;
  }

  static async open(client: Client, options: ChangeOptions = {}): Promise<TableChanges> {
    const { rows } = await client.query<Record<string, string | null>>(
      `SELECT has_parameter_privilege('deadlock_timeout', 'SET') AS may,
         (SELECT setting FROM pg_settings WHERE name = 'deadlock_timeout') AS check_ms,
         to_regclass('understudy.node') AS node`,
    );
    return new TableChanges(client, options, rows[0] ?? {});
  }

  /**
   * One at a time in a database: an agent, its watch and a command may change the same settings and
   * triggers. The lock is one that an application has no privilege to take.
   */
  async transaction<Result>(work: () => Promise<Result>): Promise<Result> {
    const client = this.#client;
    return inTransaction(client, async () => {
      await client.query(`SET LOCAL lock_timeout = ${this.#lockTimeoutMs}`);
      if (this.#mayLower) {
        await client.query(`SET LOCAL deadlock_timeout = ${deadlockTimeoutMs}`);
      }
      if (this.isInstalled) {
        await client.query('LOCK TABLE understudy.node IN SHARE UPDATE EXCLUSIVE MODE');
      }
      if (!(await this.#isWanted())) throw new Unwanted('the guard is not to be changed any more');
      return work();
    });
  }

  /**
   * Changes each table by its statements. After each round `mayGoOn` says whether the busy tables
   * are visited again, and each visit that waits is begun only while `mayWait` holds.
   */
  async visit(
    tables: readonly GuardedTable[],
    statements: (table: GuardedTable) => readonly string[],
    mayGoOn: (busy: readonly BusyTable[]) => Promise<boolean>,
    mayWait: () => boolean = () => true,
  ): Promise<readonly BusyTable[]> {
    const visits = new TableVisits(tables);
    for (;;) {
      const next = visits.next();
      if (next.kind === 'done') return [];
      if (next.kind === 'round over') {
        if (!(await mayGoOn(next.busy.map((table) => this.#busy(table))))) break;
        visits.nextRound();
        continue;
      }
      const waits = next.kind === 'waiting';
      if (waits && !mayWait()) break;
      const visited = waits ? [next.table] : next.tables;
      visits.visited(visited, await this.#visitOnce(visited, statements, waits));
    }
    return visits.left.map((table) => this.#busy(table));
  }

  #busy(table: GuardedTable): BusyTable {
    return { table, refusal: this.#refusals.get(table.oid) ?? null };
  }

  /** In one transaction; gives those that have to be visited again. */
  async #visitOnce(
    tables: readonly GuardedTable[],
    statements: (table: GuardedTable) => readonly string[],
    waits: boolean,
  ): Promise<readonly GuardedTable[]> {
    if (!waits && (await this.#visitAll(tables, statements))) return [];
    const client = this.#client;
    try {
      return await this.transaction(async () => {
        if (!waits) await client.query(`SET LOCAL lock_timeout = ${noWaitMs}`);
        const busy: GuardedTable[] = [];
        for (const table of tables) {
          await client.query('SAVEPOINT one_table');
          try {
            for (const statement of statements(table)) await client.query(statement);
          } catch (error) {
            if (!this.#isOfTable(table, error)) throw error;
            await client.query('ROLLBACK TO SAVEPOINT one_table');
            if (!goneStates.includes(error.code ?? '')) busy.push(table);
          }
        }
        return busy;
      });
    } catch (error) {
      // The lock of ours that another change holds.
      if (isDatabaseError(error, lockNotAvailable, deadlockDetected)) return tables;
      throw error;
    }
  }

  /**
   * All of them by one request to the server, without a savepoint for each: a thousand tables are
   * seldom busy. Gives false, and changes none of them, where one cannot be changed.
   */
  async #visitAll(
    tables: readonly GuardedTable[],
    statements: (table: GuardedTable) => readonly string[],
  ): Promise<boolean> {
    const changes = tables.flatMap((table) => statements(table));
    if (changes.length === 0) return true;
    try {
      await this.transaction(async () => {
        await this.#client.query(`SET LOCAL lock_timeout = ${noWaitMs}; ${changes.join('; ')}`);
      });
      return true;
    } catch (error) {
      if (!isOfStatement(error)) throw error;
      return false;
    }
  }

  /** Whether other tables can still be changed: any other error is that of the session. */
  #isOfTable(table: GuardedTable, error: unknown): error is DatabaseError {
    if (!isOfStatement(error)) return false;
    const isLocked = isDatabaseError(error, lockNotAvailable, deadlockDetected);
    if (isLocked) this.#refusals.delete(table.oid);
    else this.#refusals.set(table.oid, error.message);
    return true;
  }
}

/** Not of the session, nor of the server. */
function isOfStatement(error: unknown): error is DatabaseError {
  return error instanceof DatabaseError && !/^(08|53|57|58)/.test(error.code ?? '08');
}

function isDatabaseError(error: unknown, ...codes: readonly string[]): boolean {
  return error instanceof DatabaseError && codes.includes(error.code ?? '');
}

/** Locks that conflict with a change of triggers, SHARE ROW EXCLUSIVE. */
const conflicting = `l.locktype = 'relation' AND l.granted
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.mode NOT IN ('AccessShareLock', 'RowShareLock')
  AND l.pid IS DISTINCT FROM pg_backend_pid()`;

/** The sessions that hold such a lock of a table. */
export async function lockHolders(
  client: Client,
  { oid }: Pick<GuardedTable, 'oid'>,
): Promise<string[]> {
  const { rows } = await client.query<{ who: string }>(
    `SELECT DISTINCT coalesce(nullif(${sessionText('a')}, ''), 'pid ' || l.pid,
              'a prepared transaction, see pg_prepared_xacts') AS who
     FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
     WHERE l.relation = $1 AND ${conflicting}`,
    [oid],
  );
  return rows.map((row) => row.who);
}

/** The server processes that hold such a lock of one of the tables; prepared ones have none. */
export async function lockPids(
  client: Client,
  tables: readonly Pick<GuardedTable, 'oid'>[],
): Promise<string[]> {
  const { rows } = await client.query<{ pid: string }>(
    `SELECT DISTINCT l.pid FROM pg_locks l
     WHERE l.relation = ANY ($1::oid[]) AND l.pid IS NOT NULL AND ${conflicting}`,
    [tables.map(({ oid }) => oid)],
  );
  return rows.map((row) => row.pid);
}
