/**
 * Rows that count how often they were changed: on one node a version never goes back, and at the
 * end it is at least the number of acknowledged changes and at most that of attempted ones. One of
 * the rows is large, so that one partition lags behind the others.
 */
import { between, someOf } from '../seed.ts';
import type { Turn, Workload, Written } from './workload.ts';

const ids = Array.from({ length: 16 }, (_, at) => at + 1);
const largeId = 7;

/** Every change writes the note anew: a large value that an update leaves out stops the stream. */
function versionsWith(largeNote: number): Workload {
  const write = async ({ client, random }: Turn): Promise<Written> => {
    const chosen = someOf(random, ids, between(random, 1, 3)).sort((a, b) => a - b);
    for (const id of chosen) {
      const length = id === largeId ? largeNote : between(random, 0, 40);
      await client.query(
        `UPDATE version SET version = version + 1, note = repeat('n', $1::int) WHERE id = $2`,
        [length, id],
      );
    }
    return { raises: chosen.map((id) => `version/${id}`), rollback: random() < 0.05 };
  };
  return {
    name: 'versions',
    tableNames: ['version'],
    tables: `CREATE TABLE version (id int PRIMARY KEY, version bigint NOT NULL, note text);
      ALTER TABLE version ALTER note SET STORAGE external`,
    rows: `INSERT INTO version SELECT i, 0, '' FROM generate_series(1, ${ids.length}) i`,
    write,
    climbing: `SELECT 'version/' || id AS name, version AS value FROM version`,
    counters: `SELECT 'version/' || id AS counter, version AS value FROM version`,
  };
}

export const versions: Workload = versionsWith(4_000);
/** The same with a partition that has much more to carry than the others. */
export const slowPartition: Workload = versionsWith(150_000);
