/**
 * Bounds the creation of a logical slot, which waits for every open transaction of the server,
 * including those of other databases. It returns the result of the creation, or an error that names
 * the transactions that blocked it. It promises that nothing continues afterwards: an orphan slot
 * would fill the disk.
 */
import type { Client } from 'pg';
import type { UnderstudyError } from '../errors/understudy-error.ts';
import { sleepOrAbort } from '../waiting.ts';
import { sessionText } from './postgres-session.ts';

interface SlotCreation<Result> {
  /** The session that runs `create`. */
  readonly creator: Client;
  /** Another session of the same server, which may terminate the creator's backend. */
  readonly control: Client;
  readonly create: () => Promise<Result>;
  readonly timeoutMs: number;
  /** Ends the creation early, with the signal's reason. */
  readonly signal?: AbortSignal;
  /** Reports every few seconds the transactions that it waits for. */
  readonly onWaiting?: (blockers: string) => void;
  /** Drops the slot if the creation left one behind. */
  readonly discard: () => Promise<void>;
  readonly timedOut: (blockers: string) => UnderstudyError;
}

/** Most slots are there within a second. */
const reportEveryMs = 3_000;
/** For the end of the backend. What it still creates after that is dropped by `discard`. */
const terminateMaxMs = 5_000;

export async function createWithin<Result>(creation: SlotCreation<Result>): Promise<Result> {
  const { creator, control, create, timeoutMs, signal, discard, timedOut } = creation;
  const { onWaiting = () => undefined } = creation;
  signal?.throwIfAborted();
  const { processID: pid } = creator as Client & { readonly processID: number };
  const creating = create();
  const limit = AbortSignal.timeout(timeoutMs);
  const ending = signal === undefined ? limit : AbortSignal.any([signal, limit]);
  const ended = new Promise<typeof ending>((resolve) => {
    ending.addEventListener('abort', () => resolve(ending), { once: true });
  });
  const over = new AbortController();
  const reporting = reportBlockers(control, onWaiting, AbortSignal.any([ending, over.signal]));
  const outcome = await Promise.race([creating, ended]).finally(() => over.abort());
  await reporting;
  if (outcome !== ending) return outcome as Result;
  const blockers = await describeBlockers(control);
  // By pid: after the end of the client alone the backend still waits, and creates the slot later.
  await control.query('SELECT pg_catalog.pg_terminate_backend($1::int, $2)', [pid, terminateMaxMs]);
  // It ends by the termination, or it has just succeeded: the slot is dropped either way.
  await Promise.allSettled([creating]);
  await discard();
  signal?.throwIfAborted();
  throw timedOut(blockers);
}

async function reportBlockers(
  control: Client,
  onWaiting: (blockers: string) => void,
  signal: AbortSignal,
): Promise<void> {
  for (;;) {
    await sleepOrAbort(reportEveryMs, signal);
    if (signal.aborted) return;
    // A session that failed fails the creation too, which reports it.
    const blockers = await describeBlockers(control).catch(() => null);
    if (blockers === null) return;
    onWaiting(blockers);
  }
}

const blockersMax = 3;

/** The transactions that block a creation, the oldest first. */
async function describeBlockers(client: Client): Promise<string> {
  const { rows } = await client.query<{ who: string }>(
    `SELECT who FROM (
       SELECT xact_start AS since,
              ${sessionText('a')} || ' since ' ||
              extract(epoch FROM now() - xact_start)::int || ' s' AS who
       FROM pg_catalog.pg_stat_activity a
       WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
       UNION ALL
       SELECT prepared, 'the prepared transaction ' || quote_literal(gid) || ' in ' || database
       FROM pg_catalog.pg_prepared_xacts) AS open
     ORDER BY since LIMIT ${blockersMax}`,
  );
  return rows.map(({ who }) => who).join(', ') || 'none is left';
}
