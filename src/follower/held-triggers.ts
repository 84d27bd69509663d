/**
 * Triggers that would fire in the applier. Flows in: the tables of a node that follows; flows out:
 * ENABLE ALWAYS and ENABLE REPLICA triggers switched off and remembered, so that a promotion can
 * put them back: what they did on the leader arrives as rows, and must not be done twice.
 */
import type { Client } from 'pg';
import { inTransaction, qualifiedName, quoteIdentifier } from '../catalog/postgres-session.ts';
import { userTablesCondition } from '../catalog/read-catalog.ts';

interface TriggerRow {
  readonly schema: string;
  readonly table: string;
  readonly trigger: string;
  readonly mode: string;
}

/** Inside one transaction: remembered and switched off, or neither. */
export async function holdTriggers(client: Client): Promise<void> {
  await inTransaction(client, async () => {
    const { rows } = await client.query<TriggerRow>(
      `SELECT n.nspname AS schema, c.relname AS table, t.tgname AS trigger, t.tgenabled AS mode
       FROM pg_catalog.pg_trigger t
       JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
       JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
       WHERE t.tgenabled IN ('A', 'R') AND NOT t.tgisinternal AND ${userTablesCondition}`,
    );
    for (const { schema, table, trigger, mode } of rows) {
      await client.query(
        `INSERT INTO understudy.held_triggers (schema_name, table_name, trigger_name, mode)
         VALUES ($1, $2, $3, $4)
         ON CONFLICT (schema_name, table_name, trigger_name) DO UPDATE SET mode = EXCLUDED.mode`,
        [schema, table, trigger, mode],
      );
      await client.query(
        `ALTER TABLE ${qualifiedName(schema, table)} DISABLE TRIGGER ${quoteIdentifier(trigger)}`,
      );
    }
  });
}

/** Puts every held trigger back as it was; one whose table is gone is forgotten. */
export async function releaseTriggers(client: Client): Promise<void> {
  await inTransaction(client, async () => {
    const { rows } = await client.query<TriggerRow>(
      `SELECT h.schema_name AS schema, h.table_name AS table, h.trigger_name AS trigger, h.mode
       FROM understudy.held_triggers h
       JOIN pg_catalog.pg_namespace n ON n.nspname = h.schema_name
       JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = h.table_name
       JOIN pg_catalog.pg_trigger t ON t.tgrelid = c.oid AND t.tgname = h.trigger_name`,
    );
    for (const { schema, table, trigger, mode } of rows) {
      const how = mode === 'A' ? 'ALWAYS' : 'REPLICA';
      await client.query(
        `ALTER TABLE ${qualifiedName(schema, table)}
         ENABLE ${how} TRIGGER ${quoteIdentifier(trigger)}`,
      );
    }
    await client.query('DELETE FROM understudy.held_triggers');
  });
}
