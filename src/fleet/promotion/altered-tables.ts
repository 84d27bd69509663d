/**
 * A new epoch takes the leader's tables as they are now. Flows in: the relations of the stream and
 * the catalog; flows out: relations that end, and new ones for the tables that were altered. Their
 * ids were never used, so that no record of the former shape is taken for one of the new.
 * What no resnapshot can cure is refused before anything is changed.
 */
import type { Client } from 'pg';
import type { KnownRelation } from '../../catalog/known-relations.ts';
import { endRelation, loadKnownRelations, saveRelations } from '../../catalog/known-relations.ts';
import { inTransaction, qualifiedName } from '../../catalog/postgres-session.ts';
import { readTables } from '../../catalog/read-catalog.ts';
import { compareWithTable, newShape } from '../../catalog/relation-ids.ts';
import { readAlteredRelations } from '../../catalog/schema-changes.ts';
import { alterTable, displayName, type TableShape } from '../../catalog/table.ts';
import { problemsOf } from '../../catalog/table-problems.ts';
import { keysEqualOtherwise, tableCannotEnter } from '../../errors/table.ts';

interface AlteredTable {
  readonly known: KnownRelation;
  /** The first difference, as a clause. */
  readonly what: string;
  /** As it is now: the same table, or another of its name; null where there is none. */
  readonly table: TableShape | null;
}

/** Of the relations that have a table here. */
export async function readAlteredTables(client: Client): Promise<readonly AlteredTable[]> {
  const tables = await readTables(client, ['*.*']);
  const altered = await readAlteredRelations(client);
  const relations = (await loadKnownRelations(client)).filter(({ shape, tableOid }) => {
    return !shape.dropped && tableOid !== null;
  });
  const taken = new Set(relations.map(({ tableOid }) => tableOid));
  const byOid = new Map(tables.map((table) => [table.oid, table]));
  const free = tables.filter(({ oid }) => !taken.has(oid));
  const freeByName = new Map(free.map((table) => [qualifiedName(table.schema, table.name), table]));
  return relations.flatMap((known) => {
    const { shape, tableOid } = known;
    const same = byOid.get(tableOid ?? 0);
    const other = freeByName.get(qualifiedName(shape.schema, shape.name));
    const table = same ?? other ?? null;
    const differs = same === undefined ? null : compareWithTable(shape, same);
    const what = altered.get(shape.id) ?? differs;
    return what === null ? [] : [{ known, what, table }];
  });
}

/** Throws where a table could not be in the stream as it is now. */
export async function requireCurable(client: Client): Promise<void> {
  for (const { table } of await readAlteredTables(client)) {
    if (table === null) continue;
    const [problem] = problemsOf(table);
    if (problem !== undefined) throw tableCannotEnter(problem.message, problem.hint);
    if (table.persistence === 'permanent') continue;
    const name = displayName(table);
    throw tableCannotEnter(
      `${name} is ${table.persistence}: its changes are not in the WAL`,
      `Make it permanent on every node: \`${alterTable(table)} SET LOGGED;\``,
    );
  }
  const { rows } = await client.query<{ name: string; what: string }>(
    `SELECT table_oid::pg_catalog.regclass::text AS name, what FROM understudy.unseen_changes
     WHERE what = 'its identity takes other values for equal' LIMIT 1`,
  );
  if (rows[0] !== undefined) throw keysEqualOtherwise(rows[0].name, rows[0].what);
}

/** All of them or none. */
export async function takeAlteredTables(client: Client): Promise<readonly AlteredTable[]> {
  return inTransaction(client, async () => {
    const altered = await readAlteredTables(client);
    for (const { known } of altered) await endRelation(client, known);
    const used = new Set((await loadKnownRelations(client)).map(({ shape }) => shape.id));
    for (const { table } of altered) {
      // rule: altered-table-has-new-id
      if (table !== null) {
        await saveRelations(client, [{ shape: newShape(table, used, 'refuse'), table }]);
      }
    }
    return altered;
  });
}
