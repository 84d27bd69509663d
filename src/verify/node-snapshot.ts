/**
 * Snapshots of two databases at one LSN. On the leader it is the snapshot that a logical slot
 * exports, which sees exactly the transactions whose commit LSN is below the slot's consistent
 * point; on a follower the snapshot in which its position row has that LSN. So the order of commits
 * in the WAL decides: an ordinary snapshot is not in that order.
 */
import type { Client } from 'pg';
import { connectWalsender, quoteIdentifier } from '../catalog/postgres-session.ts';
import { createWithin } from '../catalog/slot-creation.ts';
import { formatLsn, type Lsn, parseLsn } from '../change/lsn.ts';
import { type EpochLsn, formatEpochLsn } from '../change/position.ts';
import { bug } from '../errors/bug.ts';
import { followerDidNotHold, leaderSnapshotTimeout } from '../errors/timed-out.ts';
import {
  lockTables,
  type PublishedTable,
  readLockedTables,
  readOutsideTables,
  readPublishedTables,
} from './published-tables.ts';

interface LeaderSnapshotParts {
  readonly url: string;
  readonly applicationName: string;
  /** A session on the leader, outside a transaction; afterwards inside the snapshot. */
  readonly client: Client;
  /** Unique on the server. */
  readonly slot: string;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

interface LeaderSnapshot {
  readonly lsn: Lsn;
  readonly tables: readonly PublishedTable[];
  /** Names of user tables that are not among them. */
  readonly outside: readonly string[];
}

const beginReadOnly = 'BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY';

/**
 * The slot is temporary: the server drops it when its walsender ends. The snapshot outlives the
 * walsender, since the session has imported it by then.
 */
export async function openLeaderSnapshot(parts: LeaderSnapshotParts): Promise<LeaderSnapshot> {
  const { url, applicationName, client } = parts;
  // A lost connection also fails the query that is running, which reports it.
  const walsender = await connectWalsender(url, applicationName, () => undefined);
  try {
    const created = await createTemporarySlot(walsender, parts);
    await client.query(beginReadOnly);
    await client.query(`SET TRANSACTION SNAPSHOT '${created.snapshot}'`);
    const found = await readPublishedTables(client);
    await lockTables(client, found);
    const tables = await readLockedTables(client, found);
    await nudge(walsender);
    return { lsn: created.lsn, tables, outside: await readOutsideTables(client) };
  } finally {
    await walsender.end();
  }
}

interface CreatedSlot {
  readonly lsn: Lsn;
  readonly snapshot: string;
}

async function createTemporarySlot(
  walsender: Client,
  { client, slot, timeoutMs, signal }: LeaderSnapshotParts,
): Promise<CreatedSlot> {
  const { rows } = await createWithin({
    ...{ creator: walsender, control: client, timeoutMs, signal },
    create: () =>
      walsender.query<Record<'consistent_point' | 'snapshot_name', string>>(
        `CREATE_REPLICATION_SLOT ${quoteIdentifier(slot)} TEMPORARY LOGICAL pgoutput
         (SNAPSHOT 'export')`,
      ),
    // The temporary slot ended with its walsender.
    discard: async () => undefined,
    timedOut: (blockers) => leaderSnapshotTimeout(timeoutMs, blockers),
  });
  const [created] = rows;
  if (created === undefined) throw bug('CREATE_REPLICATION_SLOT returned no row');
  return { lsn: parseLsn(created.consistent_point), snapshot: created.snapshot_name };
}

/**
 * A follower reaches the LSN when the leader has published past it. A transaction without rows
 * directly after it causes that at once, instead of the next idle point.
 */
async function nudge(walsender: Client): Promise<void> {
  await walsender.query(`SELECT pg_logical_emit_message(true, 'understudy.verify', '')`);
}

/**
 * Opens the snapshot of a follower that holds at the given position. Tables are locked before the
 * snapshot is taken, so none can be rewritten in between.
 */
export async function openFollowerSnapshot(
  client: Client,
  node: string,
  at: EpochLsn,
): Promise<readonly PublishedTable[]> {
  const found = await readPublishedTables(client);
  await client.query(beginReadOnly);
  await lockTables(client, found);
  const tables = await readLockedTables(client, found);
  const { rows } = await client.query<{ epoch: string; upto: string }>(
    'SELECT epoch, upto FROM understudy.position',
  );
  const [row] = rows;
  if (row?.epoch === String(at.epoch) && row.upto === formatLsn(at.lsn)) return tables;
  const snapshotAt = row === undefined ? null : `${row.epoch}:${row.upto}`;
  throw followerDidNotHold(node, formatEpochLsn(at), snapshotAt);
}
