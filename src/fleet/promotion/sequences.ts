/**
 * The sequences of a node that is promoted or detached. It takes sequences and the values in their
 * columns, and sets each past every value that a row uses or that the former leader may have handed
 * out unseen. A sequence is never set backwards. The decision is pure; reading and setting follow.
 */
import type { Client } from 'pg';
import { qualifiedName, quoteIdentifier } from '../../catalog/postgres-session.ts';
import { readSequences, readTables, type SequenceFacts } from '../../catalog/read-catalog.ts';

export interface SequenceChange {
  /** schema.name */
  readonly sequence: string;
  readonly from: string;
  readonly to: string;
}

/** Values that may have been handed out and never arrived: rolled back, cached, or lost. */
const marginMin = 1_000n;
const marginPerCache = 32n;

/**
 * The value to set, or null to leave the sequence alone. `used` is the outermost value in its
 * column: the largest, or the smallest of a descending sequence; null when there is no row.
 */
export function sequenceValue(sequence: SequenceFacts, used: bigint | null): bigint | null {
  const { increment, cache, min, max, lastValue, isCalled } = sequence;
  if (used === null && !isCalled) return null;
  const ascending = increment > 0n;
  const perCache = marginPerCache * cache;
  const margin = increment * (perCache > marginMin ? perCache : marginMin);
  const outermost = used === null ? lastValue : outer(used, lastValue, ascending);
  const wanted = outermost + margin;
  const fits = ascending ? wanted <= max : wanted >= min;
  if (fits) return wanted;
  // Near its bound a sequence continues behind the last row, rather than refuse every insert.
  return ascending ? smaller(outermost, max) : larger(outermost, min);
}

function outer(a: bigint, b: bigint, ascending: boolean): bigint {
  return ascending ? larger(a, b) : smaller(a, b);
}

function larger(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}

function smaller(a: bigint, b: bigint): bigint {
  return a < b ? a : b;
}

/** Inside the caller's transaction. */
export async function advanceSequences(
  client: Client,
  patterns: readonly string[],
): Promise<SequenceChange[]> {
  const tables = await readTables(client, patterns);
  const changes: SequenceChange[] = [];
  for (const sequence of await readSequences(client, tables)) {
    const table = tables.find(({ oid }) => oid === sequence.tableOid);
    if (table === undefined) continue;
    const outermost = sequence.increment > 0n ? 'max' : 'min';
    const column = quoteIdentifier(sequence.column);
    const { rows } = await client.query<{ used: string | null }>(
      `SELECT pg_catalog.${outermost}(${column})::numeric AS used
       FROM ${qualifiedName(table.schema, table.name)}`,
    );
    const used = rows[0]?.used ?? null;
    const value = sequenceValue(
      sequence,
      used === null ? null : BigInt(used.split('.', 1)[0] ?? 0),
    );
    if (value === null) continue;
    const name = qualifiedName(sequence.schema, sequence.name);
    await client.query('SELECT pg_catalog.setval($1::regclass, $2::bigint, true)', [
      name,
      String(value),
    ]);
    changes.push({
      sequence: `${sequence.schema}.${sequence.name}`,
      from: String(sequence.lastValue),
      to: String(value),
    });
  }
  return changes;
}
