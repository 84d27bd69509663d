/**
 * Sessions of ours are not ended by a timeout that a role or a database has. Postgres has
 * transaction_timeout from version 17 on; on a server without it nothing is set.
 */
// runs: full, since it needs a server of version 18
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { connectPostgres, connectWalsender } from '../../src/catalog/postgres-session.ts';
import { connectTo, type OwnServer, ownServer } from '../support/stack.ts';

const timeouts = {
  ...{ transaction_timeout: '150ms', statement_timeout: '150ms' },
  idle_in_transaction_session_timeout: '150ms',
};
let own: OwnServer;

test.before(async () => {
  own = await ownServer({ postgresVersion: '18' });
  await own.server.configure(timeouts);
});

test.after(() => own.close());

test('a transaction of ours outlasts them, and a foreign one does not', async () => {
  const ours = await connectPostgres(own.server.url(), { applicationName: 'understudy test' });
  const foreign = await connectTo(own.server.url());
  const lost = new Promise<Error>((resolve) => foreign.once('error', resolve));
  await Promise.all([ours.query('BEGIN'), foreign.query('BEGIN')]);
  await sleep(500);
  await ours.query('COMMIT');
  await ours.end();
  assert.match((await lost).message, /terminat/);
});

test('neither is the snapshot of a walsender', async () => {
  const walsender = await connectWalsender(own.server.url(), 'understudy test', () => undefined);
  const { rows } = await walsender.query<{ snapshot_name: string }>(
    `CREATE_REPLICATION_SLOT held TEMPORARY LOGICAL pgoutput (SNAPSHOT 'export')`,
  );
  await sleep(500);
  const reader = await connectPostgres(own.server.url(), { applicationName: 'understudy test' });
  await reader.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
  await reader.query(`SET TRANSACTION SNAPSHOT '${rows[0]?.snapshot_name}'`);
  await Promise.all([reader.end(), walsender.end()]);
});

test.run();
