/**
 * What breaks: the connection, directly after the first of two transactions was confirmed whose
 * commit records are adjacent in the WAL: the second record starts exactly where the first ends, at
 * the very LSN that was confirmed. The rule: an LSN covers what commits below it, strictly, and is
 * confirmed without anything added. Then Postgres sends the second transaction again; confirmed one
 * byte further, as the client library does by itself, it never does.
 */
// runs: ci, since test/model/publish.test.ts has adjacent commits
import type { Client } from 'pg';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { sessionConfig } from '../../src/catalog/postgres-session.ts';
import { formatLsn, type Lsn, parseLsn, toLsn } from '../../src/change/lsn.ts';
import { decodePgoutput } from '../../src/leader/stream/pgoutput-decoder.ts';
import { WalSession } from '../../src/leader/stream/wal-session.ts';
import { publicationName, slotName } from '../../src/topic/records/layout.ts';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { isFull } from '../support/form.ts';
import { type OwnServer, ownServer, type Stack, useStack } from '../support/stack.ts';
import { until } from '../support/until.ts';

const rounds = isFull ? 10 : 2;
let stack: Stack;
/** The leader's: no other session writes WAL between two commit records. */
let own: OwnServer;
let fleet: Fleet;
let sessions: readonly [Client, Client];
let hasWalInspect = false;
let id = 0;

test.before(async () => {
  [stack, own] = await Promise.all([useStack({ postgres: 2 }), ownServer()]);
  fleet = await startFleet({
    stack,
    servers: { a: own.server },
    tables: 'CREATE TABLE item (id int PRIMARY KEY)',
  });
  sessions = [await fleet.session('a'), await fleet.session('a')];
  const [row] = await fleet.sql(
    'a',
    `SELECT 1 FROM pg_available_extensions WHERE name = 'pg_walinspect'`,
  );
  hasWalInspect = row !== undefined;
  if (hasWalInspect) await fleet.sql('a', 'CREATE EXTENSION pg_walinspect');
});

test.after(async () => {
  await fleet.close();
  await Promise.all([own.close(), stack.close()]);
});

function nextId(): number {
  id += 1;
  return id;
}

/** Two sessions commit one after the other; gives the second one's row. */
async function commitTwo(inFirst = ''): Promise<number> {
  const [one, two] = sessions;
  await one.query(`BEGIN; INSERT INTO item VALUES (${nextId()}); ${inFirst}`);
  await two.query(`BEGIN; INSERT INTO item VALUES (${nextId()})`);
  await one.query('COMMIT');
  await two.query('COMMIT');
  return id;
}

/**
 * Where the last but one commit record ends and the last one starts, as the server decodes its WAL
 * from an idle slot; null when a record is between.
 */
async function lastBorder(slot: string): Promise<Lsn | null> {
  const rows = await fleet.sql<{ data: Buffer }>(
    'a',
    `SELECT data FROM pg_logical_slot_peek_binary_changes($1, NULL, NULL,
       'proto_version', '1', 'publication_names', $2)`,
    [slot, `"${publicationName(fleet.cluster)}"`],
  );
  const commits = rows
    .map(({ data }) => decodePgoutput(data))
    .flatMap((message) => (message.kind === 'commit' ? [message] : []));
  const [first, second] = commits.slice(-2);
  if (first === undefined || first.commitEndLsn !== second?.commitLsn) return null;
  if (hasWalInspect) {
    const border = formatLsn(first.commitEndLsn);
    const [row] = await fleet.sql<{ type: string }>(
      'a',
      'SELECT record_type AS type FROM pg_get_wal_record_info($1)',
      [border],
    );
    assert.is(row?.type, 'COMMIT', `the record at ${border} itself`);
  }
  return first.commitEndLsn;
}

async function inserted(slot: string, start: Lsn, last: number): Promise<readonly number[]> {
  const session = await open(slot, start);
  const found: number[] = [];
  const drain = (): readonly number[] => {
    for (let event = session.shift(); event !== null; event = session.shift()) {
      if (event.kind !== 'message' || event.message.kind !== 'insert') continue;
      found.push(Number(event.message.values[0]));
    }
    return found;
  };
  try {
    return await until(`row ${last} from ${slot}`, drain, {
      reached: (rows) => rows.includes(last),
    });
  } finally {
    await session.close();
  }
}

function open(slot: string, startLsn: Lsn): Promise<WalSession> {
  const connection = sessionConfig(fleet.url('a'), { applicationName: `test ${slot}` });
  const publication = publicationName(fleet.cluster);
  return WalSession.open({ connection, slot, publication, startLsn, walSenderTimeoutMs: 0 });
}

/** Confirms to the slot everything below the LSN. */
async function confirm(name: string, start: Lsn, lsn: Lsn): Promise<void> {
  const session = await open(name, start);
  session.confirm(lsn);
  await confirmedIs(name, lsn);
  await session.close();
}

/** The server still reads what was sent before the sender died. */
async function confirmedIs(slot: string, lsn: Lsn): Promise<void> {
  await until(`${slot} is confirmed to ${formatLsn(lsn)}`, () => confirmedOf(slot), {
    reached: (found) => found === formatLsn(lsn),
  });
}

async function confirmedOf(slot: string): Promise<string> {
  const [row] = await fleet.sql<{ lsn: string }>(
    'a',
    'SELECT confirmed_flush_lsn AS lsn FROM pg_replication_slots WHERE slot_name = $1',
    [slot],
  );
  return row?.lsn ?? '';
}

async function newSlot(name: string): Promise<Lsn> {
  const [row] = await fleet.sql<{ lsn: string }>(
    'a',
    `SELECT lsn FROM pg_create_logical_replication_slot($1, 'pgoutput')`,
    [name],
  );
  return parseLsn(row?.lsn ?? '');
}

test('the next transaction is sent again; confirmed one byte further, it is lost', async () => {
  for (let round = 0; round < rounds; ) {
    const [exact, further] = [`exact_${fleet.cluster}`, `further_${fleet.cluster}`];
    const starts = [await newSlot(exact), await newSlot(further)] as const;
    const second = await commitTwo();
    const border = await lastBorder(exact);
    if (border !== null) {
      const over = toLsn(border + 1n);
      await confirm(exact, starts[0], border);
      await confirm(further, starts[1], over);
      const last = nextId();
      await fleet.sql('a', `INSERT INTO item VALUES (${last})`);
      assert.equal(await inserted(exact, border, last), [second, last]);
      assert.equal(await inserted(further, over, last), [last], 'Postgres does not send it');
      round += 1;
    }
    for (const slot of [exact, further]) await drop(slot);
  }
});

/** A walsender releases its slot a moment after its connection has ended. */
async function drop(slot: string): Promise<void> {
  await fleet.sql(
    'a',
    `SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots
     WHERE slot_name = $1 AND active_pid IS NOT NULL`,
    [slot],
  );
  await fleet.sql('a', 'SELECT pg_drop_replication_slot($1)', [slot]);
}

test('an agent that is killed right after the first confirmation sends the second', async () => {
  await fleet.startAgent('b');
  const slot = slotName(fleet.cluster, 1);
  for (let [round, tries] = [0, 0]; round < rounds; tries += 1) {
    // A named point ends its batch: the second transaction is alone in the next one.
    await commitTwo(`SELECT understudy.point('border-${tries}')`);
    const border = await lastBorder(slot);
    if (border !== null) {
      // The second batch is sent already; it is committed only after the first one's confirmation.
      const dying = fleet.spawnAgent('a', 'publish.before-commit=kill:2');
      assert.is(await dying.exitCode(), null, dying.log);
      await confirmedIs(slot, border);
      round += 1;
    }
    await fleet.startAgent('a');
    await fleet.caughtUp();
    await fleet.assertSame('item');
    await fleet.agent('a').stop();
  }
});

test.run();
