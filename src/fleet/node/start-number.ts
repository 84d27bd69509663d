/**
 * Distinguishes a node from a restored copy of its database, by the number of its starts. It
 * compares the number in the database with the one in the control log, and raises both or refuses
 * the database. That happens at every start, and every minute while a node leads: a copy of the
 * leader's disk that was taken while it ran has the same timeline, and nothing else distinguishes
 * the two.
 */
import type { Client } from 'pg';
import { inTransaction } from '../../catalog/postgres-session.ts';
import { type NodeIdentity, readNode } from '../../catalog/understudy-schema.ts';
import type { ControlLog } from '../../control/control-log.ts';
import type { ServedDatabase } from '../../control/control-records.ts';
import type { ControlState } from '../../control/control-state.ts';
import { restoredCopy } from '../../errors/ownership.ts';
import { hasCode } from '../../errors/understudy-error.ts';
import type { Logger } from '../../logger.ts';
import { sleepOrAbort, unlessAborted } from '../../waiting.ts';
import { servedDatabase } from './judge-database.ts';

/** A copy that is younger than this passes for the node. */
const raiseEveryMs = 60_000;

/** A database whose number is lower than the log's is a copy. */
export function requireNewestCopy(
  { startNumbers }: Pick<ControlState, 'startNumbers'>,
  { name, startNumber }: Pick<NodeIdentity, 'name' | 'startNumber'>,
): void {
  const known = BigInt(startNumbers.get(name) ?? 0);
  if (startNumber < known) throw restoredCopy(name, startNumber, known);
}

/**
 * Compares, then raises both: a database whose number is lower than the log's is a copy. One that
 * has taken the place of another on purpose (`isReplacement`) gets the number of the log.
 */
export async function raiseStartNumber(
  client: Client,
  control: ControlLog,
  identity: NodeIdentity,
  database: ServedDatabase,
  isReplacement = false,
): Promise<NodeIdentity> {
  const { name } = identity;
  const known = BigInt(control.state.startNumbers.get(name) ?? 0);
  const isOlder = identity.startNumber < known;
  // A follower’s rows and its position are of one LSN, however old: it continues from there.
  const mayBeOlder = isReplacement && identity.role === 'follower';
  if (!mayBeOlder) requireNewestCopy(control.state, identity);
  const startNumber = (isOlder ? known : identity.startNumber) + 1n;
  // The database first: a crash in between leaves it ahead, never behind.
  await inTransaction(client, () =>
    client.query('UPDATE understudy.node SET start_number = $1', [startNumber]),
  );
  await control.append({
    kind: 'start',
    node: name,
    number: Number(startNumber),
    time: new Date().toISOString(),
    database: servedDatabase(database),
  });
  return { ...identity, startNumber };
}

/** Until `signal` aborts. An unreachable control log stops no leader: the next round writes it. */
export async function keepRaising(
  client: Client,
  control: ControlLog,
  database: ServedDatabase,
  log: Logger,
  signal: AbortSignal,
  everyMs: number = raiseEveryMs,
): Promise<void> {
  for (;;) {
    await sleepOrAbort(everyMs, signal);
    if (signal.aborted) return;
    await unlessAborted(raiseWhileLeading(client, control, database, log), signal);
  }
}

async function raiseWhileLeading(
  client: Client,
  control: ControlLog,
  database: ServedDatabase,
  log: Logger,
): Promise<void> {
  const identity = await readNode(client);
  if (identity === null) return;
  try {
    await raiseStartNumber(client, control, identity, database);
  } catch (error) {
    if (!hasCode(error, 'KAFKA_UNREACHABLE')) throw error;
    log.debug({ node: identity.name, error }, 'the start number is written later');
  }
}
