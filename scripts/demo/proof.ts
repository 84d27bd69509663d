/**
 * The proof at the end, when all writers have stopped. It takes the journal, the answer of the
 * promotion and sessions on both remaining nodes, and returns one verdict for each claim, with the
 * evidence against it. No claim relies on Understudy alone: rows are also read by plain SQL.
 */
import { type Client, DatabaseError } from 'pg';
import { compareEpochLsn, type EpochLsn, formatEpochLsn } from '../../src/change/position.ts';
import type { Journal, JournalEntry } from './journal.ts';
import { judgeOrders, type OrdersVerdict } from './proof-orders.ts';
import type { Readers } from './readers.ts';
import { counted, grouped } from './screen.ts';
import { readDigests, readOrders } from './shop-contents.ts';
import { checkShop } from './shop-invariants.ts';

export interface Verdict {
  readonly claim: string;
  readonly ok: boolean;
  /** The evidence against the claim, or further facts. */
  readonly details: readonly string[];
}

export interface ProvedNode {
  readonly name: string;
  readonly role: 'leader' | 'follower';
  readonly client: Client;
}

export interface ProofParts {
  readonly journal: Journal;
  readonly readers: Readers;
  readonly leader: ProvedNode;
  /** The remaining follower. */
  readonly follower: ProvedNode;
  readonly epoch: number;
  /** The end of the former epoch. */
  readonly base: EpochLsn;
  readonly point: { readonly label: string; readonly at: EpochLsn };
}

/** At most a page. */
const shownMax = 20;
const orderNumbersPerLine = 10;
const catchUpTimeout = '30s';
const lostSqlState = 'UN001';

/** Both nodes agree on the leader, the epoch, and the end of the former epoch. */
export async function proveLead(parts: ProofParts): Promise<Verdict> {
  const { leader, follower, base, epoch, point } = parts;
  const wrong: string[] = [];
  for (const { name, role, client } of [leader, follower]) {
    const wanted: NodeFacts = {
      role,
      epoch,
      read_only: role === 'leader' ? 'off' : 'on',
      base: formatEpochLsn(base),
      point: formatEpochLsn(point.at),
    };
    const is = await readNodeFacts(client, epoch, point.label);
    for (const what of ['role', 'epoch', 'read_only', 'base', 'point'] as const) {
      if (is[what] !== wanted[what]) {
        wrong.push(`node ${name}: ${what} is ${is[what]}, not ${wanted[what]}`);
      }
    }
  }
  if (compareEpochLsn(point.at, base) > 0) {
    wrong.push(`the point ${point.label} was in the log, and the base is before it`);
  }
  const claim =
    `${leader.name} leads epoch ${epoch}, which continues exactly at the end of the log, ` +
    `${formatEpochLsn(base)}; ${follower.name} follows it; both have the point ${point.label}`;
  return { claim, ok: wrong.length === 0, details: wrong };
}

interface NodeFacts {
  readonly role: string;
  readonly epoch: number;
  readonly read_only: string;
  readonly base: string | null;
  readonly point: string | null;
}

async function readNodeFacts(client: Client, epoch: number, label: string): Promise<NodeFacts> {
  const { rows } = await client.query<NodeFacts>(
    `SELECT n.role, n.epoch, current_setting('transaction_read_only') AS read_only,
       (SELECT base_epoch || ':' || base_upto FROM understudy.epochs WHERE epoch = $1) AS base,
       (SELECT epoch || ':' || upto FROM understudy.points WHERE label = $2) AS point
     FROM understudy.node n`,
    [epoch, label],
  );
  const [row] = rows;
  if (row === undefined) throw new Error('understudy.node has no row');
  return row;
}

/**
 * The central claim: every promised commit is there, once and whole; every missing one is named.
 */
export async function proveCommits(
  parts: ProofParts,
): Promise<{ readonly verdicts: readonly Verdict[]; readonly orders: OrdersVerdict }> {
  const { journal, leader, base } = parts;
  const orders = judgeOrders(journal.entries, base, await readOrders(leader.client));
  const { published, presentPastBase, leftOut, unanswered, problems } = orders;
  const inTheLog: Verdict = {
    claim:
      `all ${grouped(published)} acknowledged commits that the log holds are on ${leader.name}: ` +
      'none lost, none twice, none in part',
    ok: published > 0 && problems.length === 0,
    details: shorten(problems),
  };
  const isOne = leftOut.length === 1;
  const named: Verdict = {
    claim:
      leftOut.length === 0
        ? 'no acknowledged commit was discarded, although durability is async'
        : `${counted(leftOut.length, 'acknowledged commit')} had not reached the log when the ` +
          `leader died (durability is async) and ${isOne ? 'is' : 'are'} named`,
    ok: true,
    details: [
      ...orderNumbers(leftOut),
      `with a token past the end of the log, and there nevertheless: ${presentPastBase}`,
      `interrupted before the answer: ${unanswered.present + unanswered.absent}, of which ` +
        `${unanswered.present} are there, each whole`,
    ],
  };
  const lost = leftOut.length === 0 ? [] : [await proveLostTokens(parts, leftOut)];
  return { verdicts: [inTheLog, named, ...lost], orders };
}

/** An application with such a token gets an error, instead of an older row. */
async function proveLostTokens(
  { follower }: ProofParts,
  leftOut: readonly JournalEntry[],
): Promise<Verdict> {
  const wrong: string[] = [];
  for (const { orderId, acknowledgement } of leftOut) {
    const token = acknowledgement?.token ?? '';
    try {
      const { rows } = await follower.client.query<{ visible: boolean }>(
        `SELECT understudy.wait_for($1, '0s') AS visible`,
        [token],
      );
      wrong.push(`order ${orderId}: wait_for(${token}) returned ${rows[0]?.visible}, not lost`);
    } catch (error) {
      if (!(error instanceof DatabaseError) || error.code !== lostSqlState) throw error;
    }
  }
  const claim = `each of their tokens is refused on ${follower.name} with the error \`lost\``;
  return { claim, ok: wrong.length === 0, details: shorten(wrong) };
}

export function proveAfter({ leader }: ProofParts, orders: OrdersVerdict): Verdict {
  const { placedAfter, collisions } = orders;
  return {
    claim:
      `${grouped(placedAfter)} orders were placed on ${leader.name} after the failover, and no ` +
      'number of a sequence was assigned twice',
    ok: placedAfter > 0 && collisions.length === 0,
    details: shorten(collisions),
  };
}

export function proveReads({ readers }: ProofParts): Verdict {
  const { snapshots, ownWrites, waitedMs, waitedMsMax, lostTokens } = readers.total();
  const mean = ownWrites === 0 ? 0 : waitedMs / ownWrites;
  return {
    claim:
      `${grouped(snapshots)} snapshots were read all the while, each consistent; ` +
      `${grouped(ownWrites)} writes were read back on a follower by their token`,
    ok: snapshots > 0 && ownWrites > 0 && readers.violations.length === 0,
    details: [
      ...readers.violations,
      `a reader waited ${mean.toFixed(0)} ms for its own write on average, ` +
        `${waitedMsMax.toFixed(0)} ms at most; ${counted(lostTokens, 'token')} refused as lost`,
    ],
  };
}

/** After the follower has everything that the new leader acknowledged. */
export async function proveSums(parts: ProofParts): Promise<Verdict> {
  const { journal, leader, follower, epoch } = parts;
  const token = journal.lastToken(epoch);
  const caughtUp = await follower.client.query<{ visible: boolean }>(
    'SELECT understudy.wait_for($1, $2::interval) AS visible',
    [token, catchUpTimeout],
  );
  const wrong: string[] = [];
  if (caughtUp.rows[0]?.visible !== true) {
    wrong.push(`node ${follower.name} has not reached ${token} within ${catchUpTimeout}`);
  }
  for (const { name, client } of [leader, follower]) {
    const { violations } = await checkShop(client);
    wrong.push(...violations.map((violation) => `node ${name}: ${violation}`));
  }
  const claim =
    `on ${leader.name} and ${follower.name} the stock adds up (initial = left + sold), and so do ` +
    'orders and balances';
  return { claim, ok: wrong.length === 0, details: wrong };
}

/** Plain SQL over every row of every table, independent of `understudy verify`. */
export async function proveCopies({ leader, follower }: ProofParts): Promise<Verdict> {
  const here = await readDigests(leader.client);
  const there = await readDigests(follower.client);
  const wrong = here.flatMap((digest, at) => {
    const other = there[at];
    if (other?.digest === digest.digest && other.rows === digest.rows) return [];
    const { table, rows } = digest;
    return [`${table}: ${rows} rows on ${leader.name}, ${other?.rows} on ${follower.name}`];
  });
  const rows = here.map((digest) => `${digest.table} ${grouped(digest.rows)}`);
  return {
    claim: `a digest by plain SQL confirms it (${rows.join(', ')} rows)`,
    ok: wrong.length === 0,
    details: wrong,
  };
}

function orderNumbers(leftOut: readonly JournalEntry[]): string[] {
  const sorted = [...leftOut].sort((one, other) => Number(one.orderId) - Number(other.orderId));
  const numbers = sorted.map(({ orderId, state }) =>
    state.status === 'placed' ? orderId : `${orderId} (its cancellation)`,
  );
  const lines: string[] = [];
  for (let at = 0; at < numbers.length; at += orderNumbersPerLine) {
    const some = numbers.slice(at, at + orderNumbersPerLine).join(', ');
    lines.push(`${at === 0 ? 'discarded: order ' : '           '}${some}`);
  }
  return shorten(lines);
}

function shorten(lines: readonly string[]): string[] {
  const more = lines.length - shownMax;
  return [...lines.slice(0, shownMax), ...(more > 0 ? [`and ${more} more lines`] : [])];
}
