/**
 * What a failover would lose now: what the leader has committed and the log does not hold. It takes
 * the control log's owner, the end of the topic and the leader's server, where that answers, and
 * gives the distance in WAL and, while nothing reads the slot, the number of transactions. It
 * changes nothing.
 */
import type { Client } from 'pg';
import { readNode } from '../../catalog/understudy-schema.ts';
import { formatLsn, type Lsn, parseLsn } from '../../change/lsn.ts';
import { type EpochLsn, formatEpochLsn } from '../../change/position.ts';
import { ownerOf } from '../../control/claim.ts';
import type { ControlState } from '../../control/control-state.ts';
import { hasCode } from '../../errors/understudy-error.ts';
import type { Releasers } from '../../lifecycle.ts';
import { publicationName, slotName } from '../../topic/records/layout.ts';
import type { Cluster } from '../cluster.ts';

/** In the JSON of a dry run. */
export interface Unpublished {
  /** Whether the leader's server answers; null where no node leads. */
  readonly leaderUp: boolean | null;
  /** The end of the log: what the leader committed past it is lost. */
  readonly logLsn: string | null;
  readonly rpo: { readonly transactions: number | null; readonly bytes: number | null };
}

const unknown = { transactions: null, bytes: null };
/** Decoding more than that takes too long for a question. */
const countMaxMs = 10_000;

export async function readUnpublished(
  cluster: Cluster,
  state: ControlState,
  end: EpochLsn | null,
  releasers: Releasers,
): Promise<Unpublished> {
  const logLsn = end === null ? null : formatEpochLsn(end);
  const owner = ownerOf(state);
  if (owner === null) return { leaderUp: null, logLsn, rpo: unknown };
  const client = await openLeader(cluster, owner.node, releasers);
  if (client === null) return { leaderUp: false, logLsn, rpo: unknown };
  const identity = await readNode(client);
  // LSNs of an epoch that this database does not lead are those of another server.
  const isOfEpoch = identity?.role === 'leader' && identity.epoch === end?.epoch;
  if (end === null || !isOfEpoch) return { leaderUp: true, logLsn, rpo: unknown };
  const bytes = bytesPast(await flushedLsn(client), end);
  const transactions = await countPast(client, cluster.name, end);
  return { leaderUp: true, logLsn, rpo: { transactions, bytes } };
}

async function openLeader(
  cluster: Cluster,
  node: string,
  releasers: Releasers,
): Promise<Client | null> {
  try {
    return await cluster.openSession(releasers, node, 'failover');
  } catch (error) {
    if (hasCode(error, 'POSTGRES_UNREACHABLE')) return null;
    throw error;
  }
}

async function flushedLsn(client: Client): Promise<Lsn> {
  const { rows } = await client.query<{ lsn: string }>(
    `SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
       ELSE pg_current_wal_flush_lsn() END AS lsn`,
  );
  return parseLsn(rows[0]?.lsn ?? '0/0');
}

function bytesPast(flushed: Lsn, end: EpochLsn): number {
  return flushed > end.lsn ? Number(flushed - end.lsn) : 0;
}

/** Null while the agent reads the slot, and where counting takes too long. */
async function countPast(client: Client, cluster: string, end: EpochLsn): Promise<number | null> {
  try {
    await client.query(`SET statement_timeout = ${countMaxMs}`);
    const { rows } = await client.query<{ count: string }>(
      `SELECT count(*) FROM pg_logical_slot_peek_binary_changes($1, NULL, NULL,
         'proto_version', '1', 'publication_names', $2)
       WHERE get_byte(data, 0) = ascii('C') AND lsn > $3::pg_lsn`,
      [slotName(cluster, end.epoch), publicationName(cluster), formatLsn(end.lsn)],
    );
    return Number(rows[0]?.count ?? 0);
  } catch (error) {
    // In use, lost, or too much: the distance in WAL says how much it is at most.
    if (error instanceof Error && 'code' in error) return null;
    throw error;
  }
}
