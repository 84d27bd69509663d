/**
 * What a follower's applier leaves in its database and on its server for running statements as the
 * owners of tables: functions in the schema understudy_rows, and roles that row security does not
 * concern. It takes a session of a superuser, and drops both; roles also of databases that are
 * gone.
 */
import type { Client } from 'pg';
import { inTransaction, quoteIdentifier } from './postgres-session.ts';

const rolePrefix = 'understudy_rows';
/** Each dropped object is a lock until the commit, and a server has a bounded number of them. */
const functionsTogether = 500;

/** The role that acts for an owner in this database. */
export async function rowRoleName(client: Client, ownerOid: string): Promise<string> {
  const { rows } = await client.query<{ oid: string }>(
    'SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()',
  );
  return `${rolePrefix}_${rows[0]?.oid ?? ''}_${ownerOid}`;
}

/** Outside of a transaction. */
export async function dropRowFunctions(client: Client): Promise<void> {
  for (;;) {
    const { rows } = await client.query<{ name: string }>(
      `SELECT pg_catalog.format('understudy_rows.%I(%s)', p.proname,
         pg_catalog.pg_get_function_identity_arguments(p.oid)) AS name
       FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
       WHERE n.nspname = 'understudy_rows' LIMIT ${functionsTogether}`,
    );
    if (rows.length === 0) break;
    await client.query(`DROP FUNCTION ${rows.map(({ name }) => name).join(', ')}`);
  }
  if ((await unusedRoles(client)).length === 0) return;
  await inTransaction(client, async () => {
    // The agents of two databases of one server may do this at once.
    await client.query('LOCK TABLE pg_catalog.pg_authid IN SHARE ROW EXCLUSIVE MODE');
    for (const role of await unusedRoles(client)) {
      await client.query(`DROP OWNED BY ${quoteIdentifier(role)}`);
      await client.query(`DROP ROLE ${quoteIdentifier(role)}`);
    }
  });
}

async function unusedRoles(client: Client): Promise<readonly string[]> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT r.rolname AS name FROM pg_catalog.pg_roles r
     LEFT JOIN pg_catalog.pg_database d
       ON d.oid::pg_catalog.text = pg_catalog.split_part(r.rolname, '_', 3)
     WHERE r.rolname ~ '^${rolePrefix}_[0-9]+_[0-9]+$'
       AND (d.oid IS NULL OR d.datname = pg_catalog.current_database())`,
  );
  return rows.map(({ name }) => name);
}
