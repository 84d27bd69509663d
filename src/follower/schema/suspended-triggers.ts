/**
 * Triggers and rules that would fire in the applier. On a node that follows, those that are ENABLE
 * ALWAYS or ENABLE REPLICA are disabled and remembered, so that a promotion can restore them: what
 * they did on the leader arrives as rows, and must not be done twice.
 */
import type { Client } from 'pg';
import { qualifiedName, quoteIdentifier, quoteLiteral } from '../../catalog/postgres-session.ts';
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
  readonly oid: string;
  readonly schema: string;
  readonly table: string;
  readonly name: string;
  readonly mode: string;
}

export type StatementsByTable = ReadonlyMap<string, readonly string[]>;

function add(to: Map<string, string[]>, oid: string, statements: readonly string[]): void {
  to.set(oid, [...(to.get(oid) ?? []), ...statements]);
}

/** In the caller's transaction. */
export async function suspendTriggersHere(client: Client): Promise<void> {
  for (const statements of (await readToSuspend(client)).values()) {
    for (const statement of statements) await client.query(statement);
  }
}

/** Statements that remember what fires in the applier and disable it, by the OID of its table. */
export async function readToSuspend(client: Client): Promise<StatementsByTable> {
  const found = new Map<string, string[]>();
  for (const { word, catalog, memory, memoryName } of suspendedKinds) {
    const { rows } = await client.query<SuspendedRow>(
      `SELECT c.oid, n.nspname AS schema, c.relname AS table, f.name, f.mode
       FROM (${catalog}) AS f
       JOIN pg_catalog.pg_class c ON c.oid = f.table_oid
       JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
       WHERE f.mode IN ('A', 'R') AND ${userTablesCondition}`,
    );
    for (const { oid, schema, table, name, mode } of rows) {
      const values = [schema, table, name, mode].map(quoteLiteral).join(', ');
      add(found, oid, [
        `INSERT INTO ${memory} (schema_name, table_name, ${memoryName}, mode)
         VALUES (${values})
         ON CONFLICT (schema_name, table_name, ${memoryName}) DO UPDATE
         SET mode = EXCLUDED.mode`,
        `ALTER TABLE ${qualifiedName(schema, table)} DISABLE ${word} ${quoteIdentifier(name)}`,
      ]);
    }
  }
  return found;
}

/** Statements that restore what is suspended, by the OID of its table, and forget it. */
export async function readHeld(client: Client): Promise<StatementsByTable> {
  const held = new Map<string, string[]>();
  for (const { word, catalog, memory, memoryName } of suspendedKinds) {
    const { rows } = await client.query<SuspendedRow>(
      `SELECT c.oid, h.schema_name AS schema, h.table_name AS table, f.name, h.mode
       FROM ${memory} h
       JOIN pg_catalog.pg_namespace n ON n.nspname = h.schema_name
       JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = h.table_name
       JOIN (${catalog}) AS f ON f.table_oid = c.oid AND f.name = h.${memoryName}`,
    );
    for (const { oid, schema, table, name, mode } of rows) {
      const how = mode === 'A' ? 'ALWAYS' : 'REPLICA';
      add(held, oid, [
        `ALTER TABLE ${qualifiedName(schema, table)}
         ENABLE ${how} ${word} ${quoteIdentifier(name)}`,
        `DELETE FROM ${memory} WHERE schema_name = ${quoteLiteral(schema)}
         AND table_name = ${quoteLiteral(table)} AND ${memoryName} = ${quoteLiteral(name)}`,
      ]);
    }
  }
  return held;
}

/** Once all else is restored: what is left belongs to tables that were dropped. */
export async function dropLostHolds(client: Client): Promise<void> {
  for (const { memory } of suspendedKinds) await client.query(`DELETE FROM ${memory}`);
}
