/**
 * Reads which database a session has reached, and refuses one from which the node is not served. A
 * node that is given another database on purpose (`run --replace`) is recorded in the control log
 * before anything is created in it.
 */
import type { Client } from 'pg';
import type { NodeIdentity } from '../../catalog/understudy-schema.ts';
import { ownerOf } from '../../control/claim.ts';
import type { ControlLog } from '../../control/control-log.ts';
import { otherDatabase } from '../../errors/belonging.ts';
import { bug } from '../../errors/bug.ts';
import { leaderLostDatabase } from '../../errors/cluster.ts';
import { readReplacedDatabase } from '../../follower/state/rebuild-state.ts';
import type { Cluster } from '../cluster.ts';
import { judgeDatabase, placeOf, type ReachedDatabase, servedDatabase } from './judge-database.ts';

/** `isNode` says whether the `understudy` schema is there. */
export async function readReachedDatabase(
  client: Client,
  systemId: string,
  isNode: boolean,
): Promise<ReachedDatabase> {
  const { rows } = await client.query<Record<'oid' | 'name' | 'started' | 'present', string>>(
    `SELECT d.oid, d.datname AS name,
            extract(epoch FROM pg_catalog.pg_postmaster_start_time()) AS started,
            (SELECT pg_catalog.string_agg(o.oid::text, ' ')
             FROM pg_catalog.pg_database o) AS present
     FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()`,
  );
  const [row] = rows;
  if (row === undefined) throw bug('a session is in a database');
  return {
    systemId,
    oid: row.oid,
    name: row.name,
    address: `${client.host}:${client.port}`,
    startedAt: row.started,
    present: new Set(row.present.split(' ')),
    replaces: isNode ? await readReplacedDatabase(client) : null,
  };
}

interface ReachedNode {
  readonly cluster: Cluster;
  readonly node: string;
  readonly control: ControlLog;
  /** null where the database is no node yet. */
  readonly identity: NodeIdentity | null;
  readonly reached: ReachedDatabase;
  /** Whether it may take the place of the database from which the node was served. */
  readonly mayReplace: boolean;
}

/** Whether this database has taken the place of another just now. */
export async function requireServedDatabase(node: ReachedNode): Promise<boolean> {
  const { cluster, node: name, control, identity, reached, mayReplace } = node;
  const { state } = control;
  // Another stream, or none: the checks of the stream say what to do.
  const isOfStream = identity === null || identity.streamId === state.stream?.streamId;
  if (state.stream === null || !isOfStream) return false;
  const verdict = judgeDatabase(name, identity, reached, state);
  if (verdict.kind !== 'other') return false;
  const served = placeOf(verdict.served);
  if (identity === null && ownerOf(state)?.node === name) throw leaderLostDatabase(name, served);
  if (!mayReplace) throw otherDatabase(name, reached, served);
  cluster.around.log.warn({ node: name, before: served }, 'this database replaces the node’s');
  const number = Math.max(1, state.startNumbers.get(name) ?? 0);
  const time = new Date(cluster.around.nowMs()).toISOString();
  const database = servedDatabase(reached);
  await control.append({ kind: 'start', node: name, number, time, database });
  await control.verify();
  return true;
}
