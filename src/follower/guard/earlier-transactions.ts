/**
 * Transactions that may have run DDL past the event triggers of the write guard, and may commit a
 * table that has no trigger. It takes a session and a limit, read once the triggers were enabled,
 * and names the transactions that are to be awaited. Such a transaction has an id below the limit:
 * a command that ends later runs the triggers, and is refused at its end. Only a transaction older
 * than the event trigger understudy_watch does not, so those are named too. What runs in other
 * databases cannot change this one.
 */
import type { Client } from 'pg';
import { sessionText } from '../../catalog/postgres-session.ts';
import { noteWatchedSince } from '../../catalog/understudy-schema.ts';
import { watchTriggerMissing } from '../../errors/prerequisite.ts';

export async function limitOf(client: Client): Promise<string> {
  await requireWatch(client);
  const { rows } = await client.query<{ xmax: string }>(
    'SELECT pg_snapshot_xmax(pg_current_snapshot()) AS xmax',
  );
  return rows[0]?.xmax ?? '';
}

async function requireWatch(client: Client): Promise<void> {
  const { rows } = await client.query<{ enabled: string }>(
    `SELECT evtenabled AS enabled FROM pg_event_trigger WHERE evtname = 'understudy_watch'`,
  );
  if (rows[0]?.enabled !== 'O') throw watchTriggerMissing();
  await noteWatchedSince(client);
}

export async function earlierTransactions(client: Client, limit: string): Promise<string[]> {
  const { rows } = await client.query<{ who: string }>(
    `SELECT ${sessionText('a')} AS who
     FROM pg_stat_activity a
     WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
       AND a.backend_type <> 'autovacuum worker'
       AND (age(a.backend_xid) > age($1::xid8::xid)
         OR a.backend_type = 'client backend'
           AND a.xact_start <= (SELECT n.watched_since FROM understudy.node n))
     UNION
     SELECT 'the prepared transaction ' || quote_literal(gid)
     FROM pg_prepared_xacts
     WHERE database = current_database() AND age(transaction) > age($1::xid8::xid)`,
    [limit],
  );
  return rows.map((row) => row.who);
}
