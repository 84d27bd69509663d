/**
 * Followers that stop at an LSN: `run --until` between transactions, between two adjacent commit
 * records, at a label, and inside of batches, one of which is too large to hold. The rows are those
 * that the leader had committed there, no more and no less, with one partition and with four; a
 * later run continues.
 */
// time-limit: 300s
// runs: ci, since test/model/align.test.ts stops anywhere
import type pg from 'pg';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { formatLsn } from '../../src/change/lsn.ts';
import { decodePgoutput } from '../../src/leader/stream/pgoutput-decoder.ts';
import { publicationName } from '../../src/topic/records/layout.ts';
import { type Fleet, withFleet } from '../support/fleet.ts';
import { isFull } from '../support/form.ts';
import { type OwnServer, ownServer, type Stack, useStack } from '../support/stack.ts';

const tables = `
  CREATE TABLE entry (n int PRIMARY KEY, note text);
  CREATE TABLE filler (id int PRIMARY KEY, n int)`;
/** Of these a follower holds no more than two thirds. */
const largeRows = 40_000;
const between = 'between two commit records';
const named = 'at a label';
const beforeLarge = 'in a large batch, before its large transaction';

interface History {
  readonly partitions: number;
  readonly fillerRows: number;
  /** Null is all of them. */
  readonly stops: readonly string[] | null;
}

const histories: readonly History[] = isFull
  ? [
      { partitions: 1, fillerRows: largeRows, stops: null },
      { partitions: 4, fillerRows: largeRows, stops: null },
    ]
  : [
      { partitions: 1, fillerRows: 10, stops: [between, named] },
      { partitions: 4, fillerRows: largeRows, stops: [beforeLarge, between, named] },
    ];

interface Stop {
  readonly name: string;
  /** The value of --until. */
  readonly target: string;
  readonly lsn: string;
  /** The entries that are committed there, and the rows of the filler. */
  readonly entries: readonly number[];
  readonly filler: number;
}

let stack: Stack;
/** The leader's: no other session writes WAL between two commit records. */
let own: OwnServer;

test.before(async () => {
  [stack, own] = await Promise.all([useStack({ postgres: 2 }), ownServer()]);
});

test.after(async () => {
  await Promise.all([own.close(), stack.close()]);
});

/** What the server decodes of its WAL, from a slot of the session's own on. */
class WalProbe {
  readonly #session: pg.Client;
  readonly #publication: string;

  private constructor(session: pg.Client, publication: string) {
    this.#session = session;
    this.#publication = publication;
  }

  static async open(fleet: Fleet): Promise<WalProbe> {
    const session = await fleet.session('a');
    await session.query(`SELECT pg_create_logical_replication_slot('probe', 'pgoutput', true)`);
    return new WalProbe(session, publicationName(fleet.cluster));
  }

  /** Whether a commit record starts exactly there. */
  async isCommitAt(lsn: string): Promise<boolean> {
    const { rows } = await this.#session.query<{ data: Buffer }>(
      `SELECT data FROM pg_logical_slot_peek_binary_changes('probe', NULL, NULL,
         'proto_version', '1', 'publication_names', $1)`,
      [`"${this.#publication}"`],
    );
    const messages = rows.map(({ data }) => decodePgoutput(data));
    return messages.some((one) => one.kind === 'commit' && formatLsn(one.commitLsn) === lsn);
  }
}

/** Numbered transactions on the leader, and what is committed at the LSNs between them. */
class Journal {
  readonly #fleet: Fleet;
  readonly #entries: number[] = [];
  readonly stops: Stop[] = [];
  #filler = 0;

  constructor(fleet: Fleet) {
    this.#fleet = fleet;
  }

  async commit(...numbers: readonly number[]): Promise<void> {
    const values = numbers.map((n) => `(${n}, 'entry ${n}')`).join();
    await this.#fleet.sql('a', `INSERT INTO entry VALUES ${values}`);
    this.#entries.push(...numbers);
  }

  async fill(rows: number): Promise<void> {
    const all = `SELECT i, i FROM generate_series(1, ${rows}) AS i`;
    await this.#fleet.sql('a', `INSERT INTO filler ${all}`);
    this.#filler = rows;
  }

  note(name: string, lsn: string, target = lsn): void {
    const entries = [...this.#entries];
    this.stops.push({ name, target, lsn, entries, filler: this.#filler });
  }

  async noteHere(name: string): Promise<void> {
    this.note(name, await this.#fleet.token());
  }

  /** Two adjacent commit records; notes the LSN between, where the second one starts. */
  async commitTwo(probe: WalProbe): Promise<void> {
    const [one, two] = [await this.#fleet.session('a'), await this.#fleet.session('a')];
    for (let n = 100; n < 110; n += 2) {
      await one.query(`BEGIN; INSERT INTO entry VALUES (${n}, 'first')`);
      await two.query(`BEGIN; INSERT INTO entry VALUES (${n + 1}, 'second')`);
      await one.query('COMMIT');
      const { rows } = await two.query('SELECT pg_current_wal_insert_lsn() AS lsn');
      await two.query('COMMIT');
      this.#entries.push(n);
      const { lsn } = rows[0];
      // The server may write a record of its own in between, now and then.
      const isBorder = await probe.isCommitAt(lsn);
      if (isBorder) this.note(between, `1:${lsn}`);
      this.#entries.push(n + 1);
      if (isBorder) return;
    }
    throw new Error('no two commit records are adjacent');
  }

  /** The point follows its transaction directly; its LSN is read later. */
  async label(label: string, n: number): Promise<void> {
    const point = `SELECT understudy.point('${label}')`;
    await this.#fleet.sql('a', `BEGIN; INSERT INTO entry VALUES (${n}, 'named'); ${point}; COMMIT`);
    this.#entries.push(n);
    this.note(named, '', label);
  }
}

async function writeHistory(fleet: Fleet, fillerRows: number): Promise<readonly Stop[]> {
  const [journal, probe] = [new Journal(fleet), await WalProbe.open(fleet)];
  // While the first batch waits, the rest comes and is one batch: too large to be held.
  const leader = await fleet.startAgent('a', 'publish.before-send=pause:5000');
  await journal.commit(1);
  await journal.noteHere('at the end of a batch, or inside the next');
  await journal.commit(2);
  await journal.commit(3, 4);
  await journal.noteHere(beforeLarge);
  await journal.fill(fillerRows);
  await journal.noteHere('in a large batch, after its large transaction');
  await journal.commit(5);
  await journal.commitTwo(probe);
  await journal.commit(8);
  await journal.noteHere('after the last but one');
  await journal.label('named', 9);
  await journal.commit(10);
  const { json } = await fleet.cli('wait', 'a', '--at', 'named');
  assert.not(leader.ended, leader.log);
  return journal.stops.map((stop) => (stop.lsn === '' ? { ...stop, lsn: json.lsn } : stop));
}

for (const { partitions, fillerRows, stops: wanted } of histories) {
  test(`rows are those of the stop, over ${partitions} partitions`, () => {
    const servers = { a: own.server };
    return withFleet({ stack, servers, partitions, tables }, async (fleet) => {
      const all = await writeHistory(fleet, fillerRows);
      const stops = all.filter(({ name }) => wanted === null || wanted.includes(name));
      for (const stop of stops) await stopsAt(fleet, stop);
      const [first] = all;
      const back = await fleet.cli('run', 'b', '--until', first?.target ?? '');
      assert.is(back.code, 4, JSON.stringify(back));
      assert.match(back.json.error.message, 'a follower cannot move backwards');
      await fleet.startAgent('b');
      await fleet.caughtUp();
      await fleet.assertAllSame(['entry', 'filler']);
    });
  });
}

async function stopsAt(fleet: Fleet, stop: Stop): Promise<void> {
  const { name, target, lsn, entries, filler } = stop;
  const { code, json, stderr } = await fleet.cli('run', 'b', '--until', target);
  assert.is(code, 0, `${name}: ${JSON.stringify(json)} ${stderr}`);
  assert.equal(json, { node: 'b', lsn, reached: true }, name);
  const rows = await fleet.sql<{ n: number }>('b', 'SELECT n FROM entry ORDER BY n');
  assert.equal(
    rows.map(({ n }) => n),
    entries.toSorted((a, b) => a - b),
    `${name}, at ${lsn}`,
  );
  const [{ count } = {}] = await fleet.sql('b', 'SELECT count(*)::int FROM filler');
  assert.is(count, filler, name);
}

test.run();
