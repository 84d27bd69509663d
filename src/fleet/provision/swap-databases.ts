/**
 * Gives a database the name of another, in one transaction. It takes two databases of one server,
 * of which the new one is whole. Sessions in the old one are ended, and connections that arrive
 * meanwhile wait for the transaction: a kill at any moment leaves both as they were, or both
 * renamed.
 */
import { type Client, DatabaseError } from 'pg';
import { inTransaction, quoteIdentifier, sessionText } from '../../catalog/postgres-session.ts';
import { databaseInUse } from '../../errors/timed-out.ts';
import { hit } from '../../failpoints.ts';
import { sleep, sleepOrAbort } from '../../waiting.ts';

interface Swap {
  readonly node: string;
  /** The name that the new database takes. */
  readonly database: string;
  readonly built: string;
  /** The name of the old one from then on. */
  readonly old: string;
}

/** Two sessions in another database of the server. */
interface SwapSessions {
  readonly renaming: Client;
  readonly ending: Client;
}

const endEveryMs = 50;
const pauseMs = 250;
/** A session that could not be ended for so long will not end by itself. */
const swapMaxMs = 30_000;
const objectInUse = '55006';

export async function swapDatabases(
  { renaming, ending }: SwapSessions,
  swap: Swap,
  nowMs: () => number,
): Promise<void> {
  const oids = await oidsOf(renaming, [swap.database, swap.built]);
  for (const sinceMs = nowMs(); ; ) {
    // A session in the new one has no reason to be there as long as it has another name.
    await endSessions(ending, oids);
    const renamed = new AbortController();
    const clearing = keepEnding(ending, oids.slice(0, 1), renamed.signal);
    // If it fails, the renaming fails too: a session is still connected.
    clearing.catch(() => undefined);
    try {
      await rename(renaming, swap);
      return;
    } catch (error) {
      if (!(error instanceof DatabaseError) || error.code !== objectInUse) throw error;
      if (nowMs() - sinceMs > swapMaxMs) throw await inUse(ending, oids, swap, error);
    } finally {
      renamed.abort();
      await Promise.allSettled([clearing]);
    }
    await sleep(pauseMs);
  }
}

/** Each ALTER DATABASE locks its database first, then waits for the sessions in it. */
async function rename(client: Client, { database, built, old }: Swap): Promise<void> {
  await inTransaction(client, async () => {
    // rule: swap-in-one-transaction
    await client.query(
      `ALTER DATABASE ${quoteIdentifier(database)} RENAME TO ${quoteIdentifier(old)}`,
    );
    await hit('rebuild.inside-swap');
    await client.query(
      `ALTER DATABASE ${quoteIdentifier(built)} RENAME TO ${quoteIdentifier(database)}`,
    );
  });
}

async function oidsOf(client: Client, names: readonly string[]): Promise<string[]> {
  const { rows } = await client.query<{ oid: string }>(
    `SELECT d.oid FROM unnest($1::text[]) WITH ORDINALITY AS n (name, at)
     JOIN pg_database d ON d.datname = n.name ORDER BY n.at`,
    [names],
  );
  return rows.map(({ oid }) => oid);
}

/** Of the old database only, by its OID: readers of the new one connect under its name. */
async function keepEnding(
  client: Client,
  oids: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    await endSessions(client, oids);
    await sleepOrAbort(endEveryMs, signal);
  }
}

const insufficientPrivilege = '42501';

/** One by one: a session that we may not end does not protect the others. */
async function endSessions(client: Client, oids: readonly string[]): Promise<void> {
  const { rows } = await client.query<{ pid: string }>(
    'SELECT pid FROM pg_stat_activity WHERE datid = ANY ($1)',
    [oids],
  );
  for (const { pid } of rows) {
    try {
      await client.query('SELECT pg_terminate_backend($1)', [pid]);
    } catch (error) {
      if (error instanceof DatabaseError && error.code === insufficientPrivilege) continue;
      throw error;
    }
  }
}

async function inUse(
  client: Client,
  oids: readonly string[],
  { node, database }: Swap,
  cause: unknown,
): Promise<Error> {
  const { rows } = await client.query<{ who: string }>(
    `SELECT ${sessionText('a')} AS who
     FROM pg_stat_activity a WHERE datid = ANY ($1)
     UNION ALL
     SELECT 'the prepared transaction ' || quote_literal(gid)
     FROM pg_prepared_xacts p JOIN pg_database d ON d.datname = p.database
     WHERE d.oid = ANY ($1)`,
    [oids],
  );
  const users = rows.map(({ who }) => who).join(', ') || 'no session any more';
  return databaseInUse(node, database, users, cause);
}
