/**
 * Has tables read anew, from the first row to the last. Flows in: names of tables, or all; flows
 * out: which are read, from where on, and how far that is until it is done. Followers get every row
 * as the leader has it, and lose what it has not. Where the stream can go on, the request is a
 * message in the leader's WAL and waits there for its agent. Where its slot is of no use any more,
 * a new epoch begins with another slot, and all tables have to be read.
 */
import type { Client } from 'pg';
import { readPublicationState } from '../../catalog/publication.ts';
import { readServer, readTables } from '../../catalog/read-catalog.ts';
import { displayName } from '../../catalog/table.ts';
import { ledElsewhere, readNode } from '../../catalog/understudy-schema.ts';
import type { RelationId } from '../../change/change.ts';
import { parseLsn } from '../../change/lsn.ts';
import { compareEpochLsn, type EpochLsn, formatEpochLsn } from '../../change/position.ts';
import type { Owner } from '../../control/claim.ts';
import { resnapshotWithoutKey } from '../../errors/table.ts';
import { hasCode, UnderstudyError } from '../../errors/understudy-error.ts';
import { checkSlot, listSlots, newestSlot, readSlot } from '../../leader/stream/slot.ts';
import { Releasers } from '../../lifecycle.ts';
import type { CommittedReader } from '../../topic/log.ts';
import { readLogEnd } from '../../topic/log-end.ts';
import type { LogEnd } from '../../topic/partition-tails.ts';
import { RecordDecoder } from '../../topic/records/decoder.ts';
import { publicationName, slotName, slotPrefix } from '../../topic/records/layout.ts';
import { sleepOrAbort } from '../../waiting.ts';
import type { Cluster } from '../cluster.ts';
import { leaderOf, openFleetLog, openMember } from '../node/member-session.ts';
import { requireLeader } from '../promotion/new-slot.ts';
import {
  requestResnapshot,
  type StreamTable,
  streamTables,
} from '../promotion/resnapshot-tables.ts';
import { backfillText } from '../status/progress-text.ts';
import type { StandIn } from './stand-in.ts';

interface ResnapshotRequest {
  /** As in `tables` of understudy.yaml; null is every table of the stream. */
  readonly patterns: readonly string[] | null;
  /** Whether the slot is given up although nothing seems to be wrong with it. */
  readonly newSlot: boolean;
  /** Whether to stay until all rows are in the stream. */
  readonly wait: boolean;
  readonly signal: AbortSignal;
  readonly onProgress: (line: string) => void;
}

export interface ResnapshotResult {
  readonly node: string;
  readonly epoch: number;
  /** Rows that come above are those of the reading; null before the leader's agent is back. */
  readonly lsn: string | null;
  readonly tables: readonly string[];
  readonly newEpoch: boolean;
  readonly finished: boolean;
}

interface Look {
  readonly reader: CommittedReader;
  readonly decoder: RecordDecoder;
}

const lookEveryMs = 500;
/** A leader at work puts what is in its WAL into the topic within moments. */
const takenUpWithinMs = 60_000;

export async function resnapshot(
  cluster: Cluster,
  request: ResnapshotRequest,
  standIn: StandIn,
): Promise<ResnapshotResult> {
  const releasers = new Releasers();
  try {
    const { state } = await openFleetLog(cluster, releasers);
    const owner = leaderOf(state, cluster.name);
    const client = await openMember(cluster, releasers, owner.node, 'resnapshot');
    requireLeader(owner.node, (await readNode(client))?.role ?? 'none');
    const chosen = await chooseTables(client, request.patterns);
    const partitions = state.stream?.partitions ?? cluster.settings.partitions;
    const look = {
      reader: cluster.openReader(releasers, partitions),
      decoder: new RecordDecoder(cluster.registry),
    };
    const trouble = await streamTrouble(cluster, client, owner, look);
    const about = { node: owner.node, tables: chosen.map(({ table }) => displayName(table)) };
    if (trouble !== null || request.newSlot) {
      if (trouble !== null && request.patterns !== null) throw trouble;
      // Nothing of it may be in the way of the slot that is made now.
      await releasers.close();
      const epoch = await standIn.beginNextEpoch(cluster, owner.node);
      return { ...about, epoch, lsn: null, newEpoch: true, finished: false };
    }
    const relations = chosen.map(({ relation }) => relation);
    const at = await ask(client, owner, relations);
    const finished = request.wait && (await finish(cluster, look, request, at, relations));
    const lsn = formatEpochLsn(at);
    return { ...about, epoch: owner.epoch, lsn, newEpoch: false, finished };
  } finally {
    await releasers.close();
  }
}

async function chooseTables(
  client: Client,
  patterns: readonly string[] | null,
): Promise<readonly StreamTable[]> {
  const all = await streamTables(client);
  const chosen = new Map<RelationId, StreamTable>();
  for (const pattern of patterns ?? ['*.*']) {
    const oids = new Set((await readTables(client, [pattern])).map(({ oid }) => oid));
    const found = all.filter(({ table }) => oids.has(table.oid));
    if (found.length === 0) throw unknownTable(pattern);
    for (const one of found) chosen.set(one.relation, one);
  }
  const keyless = [...chosen.values()].find(({ hasKey }) => !hasKey);
  if (keyless !== undefined) throw resnapshotWithoutKey(keyless.relation);
  return [...chosen.values()];
}

function unknownTable(pattern: string): UnderstudyError {
  return new UnderstudyError(
    'USAGE',
    `no table of the stream is called ${pattern}`,
    'Write schema.table, or a pattern as in understudy.yaml: understudy resnapshot public.orders',
  );
}

/** Why the leader cannot go on where the log stands; null where it can. */
async function streamTrouble(
  cluster: Cluster,
  client: Client,
  owner: Owner,
  look: Look,
): Promise<UnderstudyError | null> {
  const publication = publicationName(cluster.name);
  const state = await readPublicationState(client, publication);
  if (state !== 'whole') {
    const what = state === 'missing' ? 'was dropped' : 'no longer publishes every change';
    return wantsAll('SCHEMA_CHANGED', `the publication ${publication} ${what}`);
  }
  if ((await ledElsewhere(client, owner.node, await readServer(client))) !== null) {
    return wantsAll('TIMELINE_MISMATCH', `node ${owner.node} is not the server its epoch began on`);
  }
  const slots = await listSlots(client, slotPrefix(cluster.name));
  const slot = newestSlot(slots, owner.epoch) ?? slotName(cluster.name, owner.epoch);
  // In this order: a leader at work confirms what the topic has, and goes on meanwhile.
  const found = await readSlot(client, slot);
  const { checkpoint } = await endOf(look);
  if (checkpoint === null) throw noCheckpoint(cluster.topic);
  try {
    checkSlot(found, slot, checkpoint.at.lsn);
    return null;
  } catch (error) {
    if (hasCode(error, 'SLOT_MISMATCH')) return error;
    throw error;
  }
}

function wantsAll(code: 'SCHEMA_CHANGED' | 'TIMELINE_MISMATCH', what: string): UnderstudyError {
  return new UnderstudyError(
    code,
    `${what}: changes are missing in the stream, of any table`,
    'Have every row read anew: understudy resnapshot --all',
  );
}

function noCheckpoint(topic: string): UnderstudyError {
  return new UnderstudyError(
    'TOPIC_MISMATCH',
    `the topic ${topic} holds no point that all its partitions have`,
    'It was deleted or made again: run understudy destroy --yes, then understudy init.',
  );
}

/** Gives where every transaction below is known to hold the request. */
async function ask(
  client: Client,
  { epoch }: Owner,
  relations: readonly RelationId[],
): Promise<EpochLsn> {
  await requestResnapshot(client, relations);
  const { rows } = await client.query<{ lsn: string }>(
    'SELECT pg_catalog.pg_current_wal_insert_lsn() AS lsn',
  );
  return { epoch, lsn: parseLsn(rows[0]?.lsn ?? '') };
}

async function endOf({ reader, decoder }: Look): Promise<LogEnd> {
  return readLogEnd(reader, decoder, await reader.watermarks());
}

/** False where it was told to stop waiting: the reading goes on without it. */
async function finish(
  { around }: Cluster,
  look: Look,
  { signal, onProgress }: ResnapshotRequest,
  at: EpochLsn,
  relations: readonly RelationId[],
): Promise<boolean> {
  const wanted = new Set(relations);
  for (const beganMs = around.nowMs(); !signal.aborted; ) {
    const { checkpoint, unfinished } = await endOf(look);
    if (checkpoint !== null && checkpoint.at.epoch > at.epoch) throw leadLost(checkpoint.at);
    const isTakenUp = checkpoint !== null && compareEpochLsn(checkpoint.at, at) >= 0;
    const left = unfinished.filter(({ relation }) => wanted.has(relation));
    if (isTakenUp && left.length === 0) return true;
    if (isTakenUp) onProgress(backfillText(left, around.nowMs()) ?? '');
    else if (around.nowMs() - beganMs > takenUpWithinMs) throw notTakenUp();
    await sleepOrAbort(lookEveryMs, signal);
  }
  return false;
}

function leadLost(at: EpochLsn): UnderstudyError {
  return new UnderstudyError(
    'LOST_LEADERSHIP',
    `epoch ${at.epoch} began meanwhile: what is left to be read is read there`,
    'See how far it is: understudy status',
  );
}

function notTakenUp(): UnderstudyError {
  return new UnderstudyError(
    'TIMED_OUT',
    `the leader’s agent has published nothing for ${takenUpWithinMs} ms`,
    'The request stays in the WAL of its database: start the agent (understudy run), and see ' +
      'understudy status for how far the reading is.',
  );
}
