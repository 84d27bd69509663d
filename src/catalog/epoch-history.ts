/**
 * The epochs that count, as this node's `understudy` schema has them. Flows out: what each of them
 * continues, by which void records are told.
 */
import type { Client } from 'pg';
import { parseLsn } from '../change/lsn.ts';
import type { EpochBase } from '../change/void.ts';

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
