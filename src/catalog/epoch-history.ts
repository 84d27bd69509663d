/**
 * The epochs that count, as this node's `understudy` schema has them. Flows out: what each of them
 * continues, by which void records are told, and the server that a node last led on.
 */
import type { Client } from 'pg';
import { parseLsn } from '../change/lsn.ts';
import type { EpochBase } from '../change/position.ts';
import type { ServerFacts } from './read-catalog.ts';

type ServerOfReign = Pick<ServerFacts, 'systemId' | 'timeline'>;

export async function readEpochBases(client: Client): Promise<EpochBase[]> {
  const { rows } = await client.query<{
    epoch: string;
    base_epoch: string | null;
    base_upto: string | null;
  }>('SELECT epoch, base_epoch, base_upto FROM understudy.epochs');
  return rows.map(({ epoch, base_epoch, base_upto }) => ({
    epoch: Number(epoch),
    base:
      base_epoch === null || base_upto === null
        ? null
        : { epoch: Number(base_epoch), lsn: parseLsn(base_upto) },
  }));
}

/**
 * Where the node last led, if not on this server and timeline: LSNs mean something there only. Null
 * too for a node that never led.
 */
export async function ledElsewhere(
  client: Client,
  node: string,
  server: ServerOfReign,
): Promise<ServerOfReign | null> {
  const { rows } = await client.query<{ system_id: string; timeline: string }>(
    'SELECT system_id, timeline FROM understudy.epochs WHERE leader = $1 ORDER BY epoch DESC ' +
      'LIMIT 1',
    [node],
  );
  const [row] = rows;
  if (row === undefined) return null;
  const led = { systemId: row.system_id, timeline: Number(row.timeline) };
  return led.systemId === server.systemId && led.timeline === server.timeline ? null : led;
}
