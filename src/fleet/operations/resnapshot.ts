/**
 * The verb `resnapshot`: has tables read again, from the first row to the last, and can wait until
 * that is complete. Followers get every row as the leader has it, and lose rows that the leader
 * does not have. Where the stream can continue, the request is a message in the leader's WAL, which
 * its agent reads there. Where the slot is of no use any more, a new epoch begins with another
 * slot, and all tables have to be read.
 */
import type { Client } from 'pg';
import { readPublicationState, unpublishedTable } from '../../catalog/publication.ts';
import { readServer, readTables } from '../../catalog/read-catalog.ts';
import { displayName } from '../../catalog/table.ts';
import { ledElsewhere, readNode } from '../../catalog/understudy-schema.ts';
import type { RelationId } from '../../change/change.ts';
import { parseLsn } from '../../change/lsn.ts';
import { compareEpochLsn, type EpochLsn, formatEpochLsn } from '../../change/position.ts';
import type { Owner } from '../../control/claim.ts';
import { epochEnded, leaderServerReplaced, serverBehindEpoch } from '../../errors/ownership.ts';
import {
  publicationChanged,
  resnapshotOfAlteredTable,
  resnapshotWithoutKey,
  tableNotPublished,
} from '../../errors/table.ts';
import { resnapshotNotBegun } from '../../errors/timed-out.ts';
import { topicRecreated } from '../../errors/topic.ts';
import { hasCode, type UnderstudyError } from '../../errors/understudy-error.ts';
import { unknownTable } from '../../errors/usage.ts';
import { checkSlot, listSlots, newestSlot, readSlot } from '../../leader/stream/slot.ts';
import { Releasers } from '../../lifecycle.ts';
import type { CommittedReader } from '../../topic/log.ts';
import { readLogEnd } from '../../topic/log-end.ts';
import type { LogEnd } from '../../topic/partition-tails.ts';
import { RecordDecoder } from '../../topic/records/decoder.ts';
import { publicationName, slotName, slotPattern } from '../../topic/records/layout.ts';
import { sleepOrAbort } from '../../waiting.ts';
import type { Cluster } from '../cluster.ts';
import { leaderOf, openFleetLog, openMember, requireMember } from '../node/member-session.ts';
import { requireLeaderAgent } from '../node/node-lock.ts';
import { requireCurrentSchema } from '../node/schema-upgrade.ts';
import { requireNewestCopy } from '../node/start-number.ts';
import { readAlteredTables, requireCurable } from '../promotion/altered-tables.ts';
import { requireLeader } from '../promotion/new-slot.ts';
import { flushedLsn } from '../promotion/promotion-steps.ts';
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
  /** Whether a usable slot is replaced, too. */
  readonly newSlot: boolean;
  /** Whether to wait until all rows are in the stream. */
  readonly wait: boolean;
  readonly signal: AbortSignal;
  readonly onProgress: (line: string) => void;
}

export interface ResnapshotResult {
  readonly node: string;
  readonly epoch: number;
  /** The resnapshot follows this position; null before the leader's agent runs again. */
  readonly lsn: string | null;
  readonly tables: readonly string[];
  readonly newEpoch: boolean;
  readonly finished: boolean;
}

/** For reads of the end of the log. */
interface LogReading {
  readonly reader: CommittedReader;
  readonly decoder: RecordDecoder;
}

const pollMs = 500;
/** A running leader publishes its WAL within moments. */
const publishedWithinMs = 60_000;

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
    await requireCurrentSchema(cluster, owner.node, client);
    const identity = requireMember(await readNode(client), cluster.name, owner.node);
    requireLeader(owner.node, identity.role);
    // No agent serves an older copy: its rows are not those that followers were promised.
    requireNewestCopy(state, identity);
    const chosen = await chooseTables(client, request.patterns);
    const partitions = state.stream?.partitions ?? cluster.settings.partitions;
    const log = {
      reader: cluster.openReader(releasers, partitions),
      decoder: new RecordDecoder(cluster.registry),
    };
    const obstacle = await whyNotContinue(cluster, client, owner, log);
    const about = { node: owner.node, tables: chosen.map(({ table }) => displayName(table)) };
    if (obstacle !== null || request.newSlot) {
      if (obstacle !== null && request.patterns !== null) throw obstacle;
      await requireCurable(client);
      // An open session of this command could block the creation of the slot.
      await releasers.close();
      const epoch = await standIn.beginNextEpoch(cluster, owner.node);
      return { ...about, epoch, lsn: null, newEpoch: true, finished: false };
    }
    const relations = chosen.map(({ relation }) => relation);
    await requireAsInStream(client, cluster, new Set(relations));
    if (request.wait) {
      const what = 'the tables would not be backfilled';
      await requireLeaderAgent({ name: owner.node, client }, what, cluster.around.sleep);
    }
    const at = await writeRequest(client, owner, relations);
    const finished =
      request.wait && (await waitUntilComplete(cluster, log, request, at, relations));
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

/** A leader could not begin: its stream stops at a table that is another, or is not published. */
async function requireAsInStream(
  client: Client,
  cluster: Cluster,
  relations: ReadonlySet<RelationId>,
): Promise<void> {
  const altered = await readAlteredTables(client);
  const [changed] = altered.filter(({ known }) => relations.has(known.shape.id));
  if (changed !== undefined) {
    const { schema, name } = changed.known.shape;
    throw resnapshotOfAlteredTable(`${schema}.${name}`, changed.what);
  }
  const publication = publicationName(cluster.name);
  const unpublished = await unpublishedTable(client, publication, [...relations]);
  if (unpublished !== null) throw tableNotPublished(unpublished, publication);
}

/** Why the leader cannot continue where the log ends; null where it can. */
async function whyNotContinue(
  cluster: Cluster,
  client: Client,
  owner: Owner,
  log: LogReading,
): Promise<UnderstudyError | null> {
  const publication = publicationName(cluster.name);
  const state = await readPublicationState(client, publication);
  if (state !== 'whole') {
    const what = state === 'missing' ? 'was dropped' : 'no longer publishes every change';
    return publicationChanged(publication, what);
  }
  if ((await ledElsewhere(client, owner.node, await readServer(client))) !== null) {
    return leaderServerReplaced(owner.node);
  }
  const slots = await listSlots(client, slotPattern(cluster.name));
  const slot = newestSlot(slots, owner.epoch) ?? slotName(cluster.name, owner.epoch);
  // In this order: a running leader publishes before it confirms.
  const found = await readSlot(client, slot);
  const { checkpoint } = await endOf(log);
  if (checkpoint === null) {
    const { topic } = cluster;
    throw topicRecreated(`${topic} holds no point that is in all its partitions`, { topic });
  }
  // Read after the end of the log: a running leader has flushed what it publishes.
  const isOwn = checkpoint.at.epoch === owner.epoch;
  if (isOwn && checkpoint.at.lsn > (await flushedLsn(client))) {
    return serverBehindEpoch(formatEpochLsn(checkpoint.at));
  }
  try {
    checkSlot(found, slot, checkpoint.at.lsn);
    return null;
  } catch (error) {
    if (hasCode(error, 'SLOT_MISMATCH')) return error;
    throw error;
  }
}

/** Returns an LSN above the request: once the log reaches it, the request is in the log. */
async function writeRequest(
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

async function endOf({ reader, decoder }: LogReading): Promise<LogEnd> {
  return readLogEnd(reader, decoder, await reader.watermarks());
}

/** False where the wait was aborted: the resnapshot continues without this command. */
async function waitUntilComplete(
  { around }: Cluster,
  log: LogReading,
  { signal, onProgress }: ResnapshotRequest,
  at: EpochLsn,
  relations: readonly RelationId[],
): Promise<boolean> {
  const wanted = new Set(relations);
  for (const beganMs = around.nowMs(); !signal.aborted; ) {
    const { checkpoint, unfinished } = await endOf(log);
    if (checkpoint !== null && checkpoint.at.epoch > at.epoch) {
      throw epochEnded(checkpoint.at.epoch);
    }
    const isInLog = checkpoint !== null && compareEpochLsn(checkpoint.at, at) >= 0;
    const left = unfinished.filter(({ relation }) => wanted.has(relation));
    if (isInLog && left.length === 0) return true;
    if (isInLog) onProgress(backfillText(left, around.nowMs()) ?? '');
    else if (around.nowMs() - beganMs > publishedWithinMs)
      throw resnapshotNotBegun(publishedWithinMs);
    await sleepOrAbort(pollMs, signal);
  }
  return false;
}
