/**
 * What it takes to have tables read anew. Flows in: a session on the leader's database; flows out:
 * which relations can be, a message in its WAL that asks for them, and a publication that sends
 * every change of them from then on.
 */
import type { Client } from 'pg';
import { type KnownRelation, loadKnownRelations } from '../../catalog/known-relations.ts';
import { inTransaction } from '../../catalog/postgres-session.ts';
import {
  addToPublication,
  createPublication,
  dropPublication,
  readPublicationState,
} from '../../catalog/publication.ts';
import { readTables } from '../../catalog/read-catalog.ts';
import type { TableShape } from '../../catalog/table.ts';
import type { RelationId } from '../../change/change.ts';
import { UnderstudyError } from '../../errors/understudy-error.ts';

/** A relation of the stream and the table that holds its rows here. */
export interface StreamTable {
  readonly relation: RelationId;
  readonly table: TableShape;
  /** Without one nobody can tell a row from another. */
  readonly hasKey: boolean;
}

/** Those with rows of their own. */
export async function streamTables(client: Client): Promise<StreamTable[]> {
  const tables = await readTables(client, ['*.*']);
  const known = await loadKnownRelations(client);
  return known.flatMap(({ shape, tableOid }: KnownRelation) => {
    const table = tables.find(({ oid }) => oid === tableOid);
    if (shape.dropped || table === undefined || table.kind === 'partitioned') return [];
    return [{ relation: shape.id, table, hasKey: shape.identity.length > 0 }];
  });
}

/** `all`: none may be left out for want of a key. */
export async function rereadableRelations(client: Client, all: boolean): Promise<RelationId[]> {
  const tables = await streamTables(client);
  const keyless = tables.find(({ hasKey }) => !hasKey);
  if (all && keyless !== undefined) throw withoutKey(keyless.relation);
  return tables.filter(({ hasKey }) => hasKey).map(({ relation }) => relation);
}

export function withoutKey(relation: RelationId): UnderstudyError {
  return new UnderstudyError(
    'TABLE_UNSUPPORTED',
    `${relation} has no key: of its rows nobody can tell which ones followers have`,
    'Name the tables that have one (understudy resnapshot <table>…). Where all must be read, ' +
      'destroy the cluster and init it again.',
  );
}

/** In the WAL, at the place of the transaction under way or of one of its own. */
export async function readAnew(client: Client, relations: readonly RelationId[]): Promise<void> {
  await client.query('SELECT understudy.read_anew($1)', [relations]);
}

/** With every table of the stream, and every change of them. */
export async function repairPublication(client: Client, publication: string): Promise<void> {
  const state = await readPublicationState(client, publication);
  const own = await readTables(client, ['*.*']);
  const known = new Set(
    (await loadKnownRelations(client)).flatMap(({ shape, tableOid }) => {
      return shape.dropped ? [] : [tableOid];
    }),
  );
  const roots = own.filter(({ oid, isPartition }) => known.has(oid) && !isPartition);
  await inTransaction(client, async () => {
    if (state === 'whole') {
      for (const table of roots) await addToPublication(client, publication, table);
      return;
    }
    await dropPublication(client, publication);
    await createPublication(client, publication, roots);
  });
}
