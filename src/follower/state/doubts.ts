/**
 * What was found against the rows of a follower, kept in its own database: a row that was missing
 * when the log changed it, or rows that `verify` found different. It outlives the agent, which may
 * go on once the log holds the row whole. `status` shows it, and no such node is promoted, until
 * `verify` finds all rows equal or the node is rebuilt.
 */
import type { Client } from 'pg';

type DoubtKind = 'damaged' | 'different';

export interface Doubt {
  readonly kind: DoubtKind;
  readonly what: string;
}

export async function saveDoubt(client: Client, { kind, what }: Doubt): Promise<void> {
  await client.query(
    `INSERT INTO understudy.doubts (kind, what) VALUES ($1, $2)
     ON CONFLICT (kind) DO UPDATE SET what = excluded.what, found = excluded.found`,
    [kind, what],
  );
}

export async function readDoubts(client: Client): Promise<readonly Doubt[]> {
  const { rows } = await client.query<Record<'kind' | 'what', string>>(
    'SELECT kind, what FROM understudy.doubts ORDER BY kind',
  );
  return rows.map(({ kind, what }) => ({ kind: kind === 'damaged' ? kind : 'different', what }));
}

/** All rows were found equal, or are built again. */
export async function deleteDoubts(client: Client): Promise<void> {
  await client.query('DELETE FROM understudy.doubts');
}
