/**
 * Whether the pg_dump of this machine can read a server of the sandbox: a downloaded server comes
 * without one. Where it cannot, understudy.yaml has to say that tables are created by hand.
 */
import { Client } from 'pg';
import { requireFittingDump } from '../../src/catalog/dump/schema-dump.ts';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';

const checked = new Map<number, Promise<boolean>>();

export function dumpFits(major: number): Promise<boolean> {
  const known = checked.get(major);
  if (known !== undefined) return known;
  const checking = requireFittingDump('pg_dump', major * 10_000).then(
    () => true,
    (error: unknown) => {
      if (error instanceof UnderstudyError && error.code === 'SCHEMA_DUMP_FAILED') return false;
      throw error;
    },
  );
  checked.set(major, checking);
  return checking;
}

export async function ddlSetting(url: string): Promise<{ readonly ddl?: 'manual' }> {
  return (await dumpFits(await majorOf(url))) ? {} : { ddl: 'manual' };
}

async function majorOf(url: string): Promise<number> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    const { rows } = await client.query<{ server_version_num: string }>('SHOW server_version_num');
    return Math.floor(Number(rows[0]?.server_version_num) / 10_000);
  } finally {
    await client.end();
  }
}
