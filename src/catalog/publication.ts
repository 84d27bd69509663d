/**
 * The publication of a cluster, on one node. It sends every change of the stream's tables. Tables
 * are named, never FOR ALL TABLES: a table without an identity would refuse updates once it is
 * published. Changes of a partition are sent as those of the partition, which is published through
 * its root. The publication exists on every node before a promotion: a slot that is older than the
 * publication sends nothing.
 */
import type { Client } from 'pg';
import { qualifiedName, quoteIdentifier } from './postgres-session.ts';
import type { TableShape } from './table.ts';

type PublishedTable = Pick<TableShape, 'schema' | 'name' | 'isPartition'>;

export async function createPublication(
  client: Client,
  publication: string,
  tables: readonly PublishedTable[],
): Promise<void> {
  const names = tables
    .filter(({ isPartition }) => !isPartition)
    .map(({ schema, name }) => qualifiedName(schema, name));
  const list = names.length === 0 ? '' : `FOR TABLE ONLY ${names.join(', ONLY ')}`;
  await client.query(
    `CREATE PUBLICATION ${quoteIdentifier(publication)} ${list}
     WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = false)`,
  );
}

/** Does nothing where the publication does not exist or has the table already. */
export async function addToPublication(
  client: Client,
  publication: string,
  { oid, schema, name }: TableShape,
): Promise<void> {
  const { rowCount } = await client.query(
    `SELECT FROM pg_catalog.pg_publication p
     WHERE p.pubname = $1 AND NOT EXISTS (
       SELECT FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = $2)`,
    [publication, oid],
  );
  if (rowCount === 0) return;
  const table = qualifiedName(schema, name);
  await client.query(`ALTER PUBLICATION ${quoteIdentifier(publication)} ADD TABLE ONLY ${table}`);
}

export async function dropPublication(client: Client, publication: string): Promise<void> {
  await client.query(`DROP PUBLICATION IF EXISTS ${quoteIdentifier(publication)}`);
}

/** Postgres reports no error for a publication that leaves changes out. */
export async function readPublicationState(
  client: Client,
  publication: string,
): Promise<'whole' | 'leaves out' | 'missing'> {
  const { rows } = await client.query<{ whole: string }>(
    `SELECT p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate AND NOT p.pubviaroot
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid
         AND (r.prqual IS NOT NULL OR r.prattrs IS NOT NULL)) AS whole
     FROM pg_catalog.pg_publication p WHERE p.pubname = $1`,
    [publication],
  );
  const [row] = rows;
  if (row === undefined) return 'missing';
  return row.whole === 't' ? 'whole' : 'leaves out';
}

/** One of the relations' tables that is not published, alone or as a partition; null for none. */
export async function unpublishedTable(
  client: Client,
  publication: string,
  relations: readonly string[],
): Promise<string | null> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT n.nspname || '.' || c.relname AS name
     FROM understudy.relations r
     JOIN pg_catalog.pg_class c ON c.oid = r.table_oid
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE r.relation_id = ANY ($2) AND NOT EXISTS (
       SELECT FROM pg_catalog.pg_publication_rel l
       JOIN pg_catalog.pg_publication p ON p.oid = l.prpubid
       WHERE p.pubname = $1 AND (l.prrelid = c.oid OR l.prrelid IN (
         SELECT a.relid FROM pg_catalog.pg_partition_ancestors(c.oid) AS a)))
     LIMIT 1`,
    [publication, relations],
  );
  return rows[0]?.name ?? null;
}
