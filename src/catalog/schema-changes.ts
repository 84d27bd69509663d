/**
 * Schema changes on a leader that its stream cannot carry, as the event triggers and the catalog
 * have them now: a change that was undone before it did harm is none. Read by the leader's agent,
 * by `status`, and before a new epoch takes the tables as they are.
 */
import type { Client } from 'pg';
import type { RelationId } from '../change/change.ts';

export interface SchemaChange {
  readonly table: string;
  /** A clause: `its column more was added`. */
  readonly what: string;
  /** Whether the stream is wrong before another row of the table is written. */
  readonly atOnce: boolean;
  /** null where no client was warned. */
  readonly changedAt: string | null;
}

export async function readSchemaChanges(client: Client): Promise<readonly SchemaChange[]> {
  const { rows } = await client.query<
    Record<'table' | 'what' | 'at_once', string> & {
      changed_at: string | null;
    }
  >(
    `SELECT o.table_name AS table, o.what, o.at_once,
       pg_catalog.date_trunc('second', s.changed_at) AS changed_at
     FROM understudy.open_changes() o
     LEFT JOIN understudy.schema_changes s ON s.table_name = o.table_name AND s.what = o.what
     ORDER BY o.table_name, o.what`,
  );
  return rows.map(({ table, what, at_once, changed_at }) => {
    return { table, what, atOnce: at_once === 't', changedAt: changed_at };
  });
}

/** The partitions here of tables of the stream, as `schema.name`; attached ones too. */
export async function readPartitions(client: Client): Promise<readonly string[]> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT n.nspname || '.' || c.relname AS name
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relispartition AND c.relkind IN ('r', 'p')
       AND pg_catalog.pg_partition_root(c.oid) IN (
         SELECT r.table_oid FROM understudy.relations r WHERE NOT r.dropped)
     ORDER BY 1`,
  );
  return rows.map(({ name }) => name);
}

/** The relations whose tables have another shape than the stream, with the first difference. */
export async function readAlteredRelations(
  client: Client,
): Promise<ReadonlyMap<RelationId, string>> {
  const { rows } = await client.query<{ id: string; what: string }>(
    `SELECT relation_id AS id, pg_catalog.min(what) AS what
     FROM understudy.altered_tables() GROUP BY relation_id ORDER BY relation_id`,
  );
  return new Map(rows.map(({ id, what }) => [id, what]));
}

/** Whether a session that makes such a change gets an error instead of a warning. */
export async function saveDdlPolicy(client: Client, refuse: boolean): Promise<void> {
  await client.query(
    `INSERT INTO understudy.ddl_policy (refuse) VALUES ($1)
     ON CONFLICT (only_row) DO UPDATE SET refuse = excluded.refuse
     WHERE ddl_policy.refuse <> excluded.refuse`,
    [refuse],
  );
}
