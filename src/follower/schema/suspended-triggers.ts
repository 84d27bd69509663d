/**
 * Triggers and rules that would fire in the applier. On a node that follows, those that are ENABLE
 * ALWAYS or ENABLE REPLICA are disabled and remembered, so that a promotion can restore them: what
 * they did on the leader arrives as rows, and must not be done twice.
 */
import type { Client } from 'pg';
import { inTransaction, qualifiedName, quoteIdentifier } from '../../catalog/postgres-session.ts';
import { userTablesCondition } from '../../catalog/read-catalog.ts';

/** A kind in the words of ALTER TABLE, its catalog query, and our table that remembers it. */
interface SuspendedKind {
  readonly word: 'TRIGGER' | 'RULE';
  readonly catalog: string;
  readonly memory: string;
  readonly memoryName: string;
}

const suspendedKinds: readonly SuspendedKind[] = [
  {
    word: 'TRIGGER',
    catalog: `SELECT t.tgrelid AS table_oid, t.tgname AS name, t.tgenabled AS mode
      FROM pg_catalog.pg_trigger t WHERE NOT t.tgisinternal`,
    memory: 'understudy.held_triggers',
    memoryName: 'trigger_name',
  },
  {
    word: 'RULE',
    catalog: `SELECT w.ev_class AS table_oid, w.rulename AS name, w.ev_enabled AS mode
      FROM pg_catalog.pg_rewrite w`,
    memory: 'understudy.held_rules',
    memoryName: 'rule_name',
  },
];

interface SuspendedRow {
  readonly schema: string;
  readonly table: string;
  readonly name: string;
  readonly mode: string;
}

/** In one transaction: remembered and disabled, or neither. */
export async function suspendTriggers(client: Client): Promise<void> {
  await inTransaction(client, () => suspendTriggersHere(client));
}

/** In the caller's transaction. */
export async function suspendTriggersHere(client: Client): Promise<void> {
  for (const { word, catalog, memory, memoryName } of suspendedKinds) {
    const { rows } = await client.query<SuspendedRow>(
      `SELECT n.nspname AS schema, c.relname AS table, f.name, f.mode
       FROM (${catalog}) AS f
       JOIN pg_catalog.pg_class c ON c.oid = f.table_oid
       JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
       WHERE f.mode IN ('A', 'R') AND ${userTablesCondition}`,
    );
    for (const { schema, table, name, mode } of rows) {
      await client.query(
        `INSERT INTO ${memory} (schema_name, table_name, ${memoryName}, mode)
         VALUES ($1, $2, $3, $4)
         ON CONFLICT (schema_name, table_name, ${memoryName}) DO UPDATE
         SET mode = EXCLUDED.mode`,
        [schema, table, name, mode],
      );
      await client.query(
        `ALTER TABLE ${qualifiedName(schema, table)} DISABLE ${word} ${quoteIdentifier(name)}`,
      );
    }
  }
}

/** Restores everything as it was; entries of dropped tables are deleted. */
export async function restoreTriggers(client: Client): Promise<void> {
  await inTransaction(client, async () => {
    for (const { word, catalog, memory, memoryName } of suspendedKinds) {
      const { rows } = await client.query<SuspendedRow>(
        `SELECT h.schema_name AS schema, h.table_name AS table, f.name, h.mode
         FROM ${memory} h
         JOIN pg_catalog.pg_namespace n ON n.nspname = h.schema_name
         JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = h.table_name
         JOIN (${catalog}) AS f ON f.table_oid = c.oid AND f.name = h.${memoryName}`,
      );
      for (const { schema, table, name, mode } of rows) {
        const how = mode === 'A' ? 'ALWAYS' : 'REPLICA';
        await client.query(
          `ALTER TABLE ${qualifiedName(schema, table)}
           ENABLE ${how} ${word} ${quoteIdentifier(name)}`,
        );
      }
      await client.query(`DELETE FROM ${memory}`);
    }
  });
}
