/**
 * Digests of parts of a table, to narrow a difference down. A bucket is all rows whose key's hash
 * begins with certain hex digits. It takes a session inside the snapshot and the beginnings in
 * question, and returns for each bucket the digest of its rows and the ctid of one of them. Keys
 * are hashed as text in UTF8, so that a row is in the same bucket on every node. The server
 * computes all of it: no row is sent.
 */
import type { Client } from 'pg';
import type { Bucket, BucketQuestion, Buckets } from './narrowing.ts';
import { columnNames, type PublishedTable } from './published-tables.ts';
import {
  addDigests,
  type DigestRow,
  digestColumns,
  digestOf,
  fromPages,
  hashOf,
  type PageRange,
  type ReadOptions,
  readRanges,
} from './table-digest.ts';

interface BucketRow extends DigestRow {
  readonly digits: string;
  readonly tid: string;
}

export async function digestBuckets(
  client: Client,
  table: PublishedTable,
  question: BucketQuestion,
  options: ReadOptions,
): Promise<Buckets> {
  const buckets = new Map<string, Bucket>();
  const values = [question.within];
  await readRanges<BucketRow>(client, table, options, {
    query: (range) => ({ text: bucketQuery(table, range, question), values }),
    take: (row) => {
      const part = digestOf(row);
      const known = buckets.get(row.digits);
      const { tid } = known ?? row;
      buckets.set(row.digits, { ...(known ? addDigests(known, part) : part), tid });
      return part.rows;
    },
  });
  return buckets;
}

export function bucketQuery(
  table: PublishedTable,
  range: PageRange,
  { digits, within }: BucketQuestion,
): string {
  const row = hashOf(table.columns.map(({ name }) => name));
  const key = hashOf(columnNames(table, table.identity));
  return `
    SELECT left(key, ${digits}) AS digits, ${digestColumns}, min(tid)::text AS tid
    FROM (SELECT ${row} AS hash, ${key} AS key, t.ctid AS tid ${fromPages(table, range)}) AS hashed
    WHERE left(key, ${within[0]?.length ?? 0}) = ANY($1::text[])
    GROUP BY 1`;
}
