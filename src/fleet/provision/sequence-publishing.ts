/**
 * Publishes how far the leader's sequences are, so that a node that is promoted continues behind
 * them. Flows in: the values of all sequences, read about once a second; flows out: a record for
 * each that has moved, with the next point. A leader publishes all of them when it begins to
 * stream: records of an earlier epoch may be void or compacted. A failure is logged and retried:
 * followers keep the older positions, and the stream continues.
 */
import type { Client } from 'pg';
import {
  readFirstValues,
  readSequenceValues,
  type SequenceValue,
} from '../../catalog/sequences.ts';
import type { SequencePosition } from '../../change/change.ts';
import { type Lsn, parseLsn } from '../../change/lsn.ts';
import type { Leading } from '../../leader/leader.ts';
import { closeTimeoutMs, Releasers } from '../../lifecycle.ts';
import { sleepOrAbort, unlessAborted } from '../../waiting.ts';
import type { NodeAccess } from '../node/node-access.ts';

const readEveryMs = 1_000;
const pauseMs = 10_000;
/** Records of one batch: each costs some hundred bytes. */
const recordsMax = 1_000;

/** Until `signal` aborts. */
export async function keepSequencesPublished(
  node: NodeAccess,
  leading: Pick<Leading, 'publishBeside'>,
  epoch: number,
  signal: AbortSignal,
): Promise<void> {
  const { cluster, name } = node;
  const work = { node, leading, epoch, signal, published: new Map<number, SequencePosition>() };
  while (!signal.aborted) {
    const releasers = new Releasers(closeTimeoutMs);
    try {
      await publishWhileConnected(work, await cluster.openSession(releasers, name, 'sequences'));
    } catch (error) {
      if (signal.aborted) return;
      cluster.around.log.warn(
        { node: name, error },
        'publishing sequences failed: the topic keeps their older positions',
      );
      await sleepOrAbort(pauseMs, signal);
    } finally {
      await releasers.close();
    }
  }
}

interface Work {
  readonly node: NodeAccess;
  readonly leading: Pick<Leading, 'publishBeside'>;
  readonly epoch: number;
  readonly signal: AbortSignal;
  /** By OID; as they are in the topic. */
  readonly published: Map<number, SequencePosition>;
}

async function publishWhileConnected(work: Work, client: Client): Promise<void> {
  const { published, signal } = work;
  while (!signal.aborted) {
    const moved = await readMoved(client, published);
    for (let first = 0; first < moved.length; first += recordsMax) {
      const part = moved.slice(first, first + recordsMax);
      await publish(work, client, part);
      if (signal.aborted) return;
      for (const { oid, position } of part) published.set(oid, position);
    }
    await sleepOrAbort(readEveryMs, signal);
  }
}

interface MovedSequence {
  readonly oid: number;
  readonly position: SequencePosition;
}

async function readMoved(
  client: Client,
  published: ReadonlyMap<number, SequencePosition>,
): Promise<readonly MovedSequence[]> {
  const values = (await readSequenceValues(client)).filter((value) => {
    return hasMoved(value, published.get(value.oid));
  });
  const first = await readFirstValues(
    client,
    values.filter(({ lastValue }) => lastValue === null),
  );
  return values.flatMap(({ oid, schema, name, lastValue }) => {
    const value = lastValue ?? first.get(oid);
    // It has given its first value meanwhile: the next read has that.
    if (value === undefined) return [];
    return [{ oid, position: { schema, name, lastValue: value, isCalled: lastValue !== null } }];
  });
}

/** Also under another name. */
function hasMoved(
  { schema, name, lastValue }: SequenceValue,
  known: SequencePosition | undefined,
): boolean {
  if (known === undefined || known.schema !== schema || known.name !== name) return true;
  return lastValue === null ? known.isCalled : !known.isCalled || known.lastValue !== lastValue;
}

async function publish(
  { node, leading, epoch, signal }: Work,
  client: Client,
  part: readonly MovedSequence[],
): Promise<void> {
  const { cluster, encoder } = node;
  const timeMicros = BigInt(cluster.around.nowMs()) * 1000n;
  const at = { epoch, lsn: await insertLsn(client) };
  const positions = part.map(({ position }) => position);
  const records = await encoder.encodeSequences(positions, at, timeMicros);
  if (signal.aborted) return;
  const isSent = leading.publishBeside(records);
  // A record of ours moves the WAL: a point follows also where nextval is all that clients call.
  await client.query(`SELECT pg_catalog.pg_logical_emit_message(true, 'understudy.sequences', '')`);
  await unlessAborted(isSent, signal);
}

async function insertLsn(client: Client): Promise<Lsn> {
  const { rows } = await client.query<{ lsn: string }>(
    'SELECT pg_catalog.pg_current_wal_insert_lsn() AS lsn',
  );
  return parseLsn(rows[0]?.lsn ?? '');
}
