/**
 * Bounds the making of a logical slot, which waits for every open transaction of the server, those
 * of other databases too. Flows in: the session that makes it, a second one, and how long at most;
 * flows out: what the creation answered, or an error that names who was waited for. It promises
 * that nothing goes on afterwards: an orphan slot would fill the disk.
 */
import type { Client } from 'pg';
import type { UnderstudyError } from '../errors/understudy-error.ts';

interface SlotCreation<Result> {
  readonly maker: Client;
  /** Another session of the same server, with the right to end the maker's. */
  readonly control: Client;
  readonly create: () => Promise<Result>;
  readonly timeoutMs: number;
  /** Ends it early, with its own reason. */
  readonly signal?: AbortSignal;
  /** Removes what the creation may have left behind. */
  readonly discard: () => Promise<void>;
  readonly late: (blockers: string) => UnderstudyError;
}

/** For the backend to end; past that, what it still does is met by `discard`. */
const terminateMaxMs = 5_000;

export async function createWithin<Result>(creation: SlotCreation<Result>): Promise<Result> {
  const { maker, control, create, timeoutMs, signal, discard, late } = creation;
  signal?.throwIfAborted();
  const { processID: pid } = maker as Client & { readonly processID: number };
  const creating = create();
  const limit = AbortSignal.timeout(timeoutMs);
  const ending = signal === undefined ? limit : AbortSignal.any([signal, limit]);
  const ended = new Promise<typeof ending>((resolve) => {
    ending.addEventListener('abort', () => resolve(ending), { once: true });
  });
  const outcome = await Promise.race([creating, ended]);
  if (outcome !== ending) return outcome as Result;
  const blockers = await describeBlockers(control);
  // By its pid: ending the client alone would leave the backend waiting, whose slot appears later.
  await control.query('SELECT pg_catalog.pg_terminate_backend($1::int, $2)', [pid, terminateMaxMs]);
  // It ends by the termination, or it has just succeeded: either way the slot goes.
  await Promise.allSettled([creating]);
  await discard();
  signal?.throwIfAborted();
  throw late(blockers);
}

const blockersMax = 3;

/** Who holds a creation up, the oldest first. */
async function describeBlockers(client: Client): Promise<string> {
  const { rows } = await client.query<{ who: string }>(
    `SELECT who FROM (
       SELECT xact_start AS since,
              'pid ' || pid || coalesce(' of ' || usename, '') || coalesce(' in ' || datname, '') ||
              ' since ' || extract(epoch FROM now() - xact_start)::int || ' s' AS who
       FROM pg_catalog.pg_stat_activity
       WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
       UNION ALL
       SELECT prepared, 'the prepared transaction ' || quote_literal(gid) || ' in ' || database
       FROM pg_catalog.pg_prepared_xacts) AS open
     ORDER BY since LIMIT ${blockersMax}`,
  );
  return rows.map(({ who }) => who).join(', ') || 'nobody any more';
}
