/**
 * How far the sequences of the leader were, as a follower read it in the topic: saved with the rows
 * that it applies, read when the node is promoted or detached. Flows in: positions in the order of
 * the topic; flows out: the newest of each sequence, with how far it moved between two of them. A
 * sequence is not transactional, so these may be ahead of the rows, and are never behind a row by
 * more than what the leader handed out between two reads.
 */
import type { Client } from 'pg';
import type { SequencePosition } from '../../change/change.ts';

export interface SavedSequence extends SequencePosition {
  /** The largest recent distance between two positions: it decays by half at each. */
  readonly stride: bigint;
}

/** A sequence that was set by hand moved further than any application moves one in a second. */
const strideMax = 1_000_000;

/** The newest position of each sequence that waits to be saved. */
export class UnsavedSequences {
  readonly #positions = new Map<string, SequencePosition>();

  add(positions: readonly SequencePosition[]): void {
    for (const position of positions) {
      this.#positions.set(JSON.stringify([position.schema, position.name]), position);
    }
  }

  get all(): readonly SequencePosition[] {
    return [...this.#positions.values()];
  }

  /** A newer position may have come while these were saved. */
  saved(positions: readonly SequencePosition[]): void {
    for (const position of positions) {
      const name = JSON.stringify([position.schema, position.name]);
      if (this.#positions.get(name) === position) this.#positions.delete(name);
    }
  }
}

/** In the caller's transaction; each sequence at most once. */
export async function saveSequences(
  client: Client,
  positions: readonly SequencePosition[],
): Promise<void> {
  if (positions.length === 0) return;
  await client.query(
    `INSERT INTO understudy.sequences AS s
       (schema_name, sequence_name, last_value, is_called, stride)
     SELECT n.schema_name, n.sequence_name, n.last_value, n.is_called, 0
     FROM unnest($1::text[], $2::text[], $3::bigint[], $4::boolean[])
       AS n (schema_name, sequence_name, last_value, is_called)
     ON CONFLICT (schema_name, sequence_name) DO UPDATE SET
       last_value = excluded.last_value, is_called = excluded.is_called,
       stride = greatest(s.stride / 2,
         least(abs(excluded.last_value::numeric - s.last_value), ${strideMax})::bigint)`,
    [
      positions.map(({ schema }) => schema),
      positions.map(({ name }) => name),
      positions.map(({ lastValue }) => String(lastValue)),
      positions.map(({ isCalled }) => isCalled),
    ],
  );
}

export async function readSavedSequences(client: Client): Promise<SavedSequence[]> {
  const { rows } = await client.query<Record<string, string>>(
    `SELECT schema_name, sequence_name, last_value, is_called, stride FROM understudy.sequences`,
  );
  return rows.map((row) => ({
    schema: row.schema_name ?? '',
    name: row.sequence_name ?? '',
    lastValue: BigInt(row.last_value ?? 0),
    isCalled: row.is_called === 't',
    stride: BigInt(row.stride ?? 0),
  }));
}
