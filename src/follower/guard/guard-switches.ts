/**
 * The switches of the write guard that are not of one table: the event triggers against DDL, the
 * database's default_transaction_read_only, and the mark that says that all of the guard is
 * armed. It takes a session of the replica role; each change is one transaction, and is retried
 * where another session changes the same entry of the catalog.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { type Client, DatabaseError } from 'pg';
import { quoteIdentifier } from '../../catalog/postgres-session.ts';
import { guardName, type TableChanges } from './guarded-tables.ts';

/**
 * DDL is refused at the start of a command, and at its end for sessions that had not read
 * the first trigger: see understudy.watch_ddl in schemas/sql.
 */
const ddlGuards = [
  { name: guardName, event: 'ddl_command_start' },
  { name: 'understudy_guard_end', event: 'ddl_command_end' },
] as const;

export interface Switches {
  readonly refusesDdl: boolean;
  readonly readOnlyByDefault: boolean;
  /** Every transaction that may have created a table past the event triggers is over. */
  readonly isWhole: boolean;
}

export async function readSwitches(client: Client): Promise<Switches> {
  const { rows } = await client.query<Record<string, string | null>>(
    `SELECT (SELECT count(*) FROM pg_event_trigger
             WHERE evtname = ANY ($1) AND evtenabled = 'O') AS enabled,
            coalesce('default_transaction_read_only=on' = ANY (s.setconfig), false) AS read_only,
            obj_description(to_regclass('understudy.node'), 'pg_class') AS mark
     FROM pg_database d LEFT JOIN pg_db_role_setting s ON s.setdatabase = d.oid AND s.setrole = 0
     WHERE d.datname = current_database()`,
    [ddlGuards.map((guard) => guard.name)],
  );
  return {
    refusesDdl: Number(rows[0]?.enabled) === ddlGuards.length,
    readOnlyByDefault: rows[0]?.read_only === 't',
    isWhole: rows[0]?.mark === wholeMark,
  };
}

/** A comment on a table of ours: a setting of our own would need a privilege of its own. */
const wholeMark = 'The write guard is whole.';

/** Repeating it changes nothing. */
export async function refuseDdl(client: Client, changes: TableChanges): Promise<void> {
  await settle(changes, async () => {
    for (const { name, event } of ddlGuards) {
      if (!(await hasEventTrigger(client, name))) {
        await client.query(
          `CREATE EVENT TRIGGER ${name} ON ${event} EXECUTE FUNCTION understudy.refuse_ddl()`,
        );
      }
      await client.query(`ALTER EVENT TRIGGER ${name} ENABLE`);
    }
  });
}

export async function allowDdl(client: Client, changes: TableChanges): Promise<void> {
  await settle(changes, async () => {
    for (const { name } of ddlGuards) {
      if (await hasEventTrigger(client, name)) {
        await client.query(`ALTER EVENT TRIGGER ${name} DISABLE`);
      }
    }
  });
}

export async function dropDdlGuards(client: Client, changes: TableChanges): Promise<void> {
  await settle(changes, async () => {
    for (const { name } of ddlGuards) await client.query(`DROP EVENT TRIGGER IF EXISTS ${name}`);
  });
}

async function hasEventTrigger(client: Client, name: string): Promise<boolean> {
  const found = await client.query('SELECT FROM pg_event_trigger WHERE evtname = $1', [name]);
  return found.rowCount === 1;
}

/** The settings of the database: `opening` is read-only, and no longer whole. */
type Setting = 'on' | 'whole' | 'opening' | 'off';

export async function setReadOnly(
  client: Client,
  changes: TableChanges,
  to: Setting,
): Promise<void> {
  const { rows } = await client.query<{ name: string }>('SELECT current_database() AS name');
  const database = quoteIdentifier(rows[0]?.name ?? '');
  const readOnly = to === 'off' ? 'RESET default_transaction_read_only' : readOnlyOn;
  const mark = to === 'whole' ? `'${wholeMark}'` : 'NULL';
  await settle(changes, async () => {
    if (to !== 'opening') await client.query(`ALTER DATABASE ${database} ${readOnly}`);
    if (changes.isInstalled) await client.query(`COMMENT ON TABLE understudy.node IS ${mark}`);
  });
}

const readOnlyOn = 'SET default_transaction_read_only = on';
/** Another session that changes the same entry of the catalog makes ours fail, rarely. */
const settleTriesMax = 20;
const settlePauseMs = 50;
const passingStates = ['XX000', '55P03', '40P01'];

async function settle(changes: TableChanges, work: () => Promise<void>): Promise<void> {
  for (let tries = 1; ; tries += 1) {
    try {
      await changes.transaction(work);
      return;
    } catch (error) {
      const state = error instanceof DatabaseError ? error.code : undefined;
      if (!passingStates.includes(state ?? '') || tries === settleTriesMax) throw error;
      await delay(settlePauseMs);
    }
  }
}
