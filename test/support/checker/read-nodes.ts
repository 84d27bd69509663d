/**
 * Reads what a node holds, by plain SQL. Flows in: a session and the workloads; flows out: things,
 * counters and lists for the journal's judge, and a digest and a number of rows for each table.
 */
import type pg from 'pg';
import { parseLsn } from '../../../src/change/lsn.ts';
import type { Workload } from '../workloads/workload.ts';
import type { KnownEpoch } from './epochs.ts';
import type { Contents } from './judge-writes.ts';

export interface TableDigest {
  readonly table: string;
  readonly rows: number;
  readonly digest: string;
}

export async function readContents(
  client: pg.Client,
  node: string,
  workloads: readonly Workload[],
): Promise<Contents> {
  const things = new Map<string, number>();
  const counters = new Map<string, bigint>();
  const lists = new Map<string, readonly string[]>();
  for (const workload of workloads) {
    for (const { thing } of await read<{ thing: string }>(client, workload.things)) {
      things.set(thing, (things.get(thing) ?? 0) + 1);
    }
    type Counted = { counter: string; value: string };
    for (const { counter, value } of await read<Counted>(client, workload.counters)) {
      counters.set(counter, BigInt(value));
    }
    type Listed = { list: string; elements: string };
    for (const { list, elements } of await read<Listed>(client, workload.lists)) {
      lists.set(String(list), elements.split(','));
    }
  }
  return { node, things, counters, lists };
}

async function read<Row extends pg.QueryResultRow>(
  client: pg.Client,
  query: string | undefined,
): Promise<readonly Row[]> {
  return query === undefined ? [] : (await client.query<Row>(query)).rows;
}

/** The epochs that a node knows of: their begins, as the topic has them too. */
export async function readEpochs(client: pg.Client): Promise<readonly KnownEpoch[]> {
  type Found = Omit<KnownEpoch, 'base'> & { baseEpoch: number | null; baseUpto: string | null };
  const { rows } = await client.query<Found>(
    `SELECT epoch, leader, system_id AS "systemId", timeline, base_epoch AS "baseEpoch",
       base_upto AS "baseUpto" FROM understudy.epochs ORDER BY epoch`,
  );
  return rows.map(({ baseEpoch, baseUpto, ...begin }) => {
    const isFirst = baseEpoch === null || baseUpto === null;
    return { ...begin, base: isFirst ? null : { epoch: baseEpoch, lsn: parseLsn(baseUpto) } };
  });
}

/** Hashes of all rows are added up, so that the order in which they lie does not matter. */
export async function readDigests(
  client: pg.Client,
  tables: readonly string[],
): Promise<readonly TableDigest[]> {
  await client.query(`SET extra_float_digits = 3; SET timezone = 'UTC'; SET datestyle = 'ISO'`);
  const digests: TableDigest[] = [];
  for (const table of tables) {
    const { rows } = await client.query<{ rows: string; digest: string }>(
      `SELECT count(*) AS rows, coalesce(sum(('x' || substr(md5(t::text), 1, 15))::bit(60)::bigint),
         0)::text AS digest FROM ${client.escapeIdentifier(table)} AS t`,
    );
    const [row] = rows;
    digests.push({ table, rows: Number(row?.rows ?? 0), digest: row?.digest ?? '' });
  }
  return digests;
}
