/**
 * Compares the acknowledged commits with the orders on the new leader. It takes the journal, the
 * LSN that the new epoch continues, and every order, and returns commits that must be there and are
 * not (a loss, which fails the demo), acknowledged commits that the failover discarded (async
 * durability allows it, and each is named), and orders that cannot be explained. Pure.
 */
import type { EpochLsn } from '../../src/change/position.ts';
import type { JournalEntry, OrderState } from './journal.ts';

/** An order in the database, with the count of its lines. */
export interface FoundOrder extends OrderState {
  readonly orderId: string;
}

export interface OrdersVerdict {
  readonly acknowledged: number;
  /** Acknowledged by the old leader at or below the base, or by the new one. */
  readonly published: number;
  /** Acknowledged past the base and there nevertheless: the token is an upper bound. */
  readonly presentPastBase: number;
  /** Acknowledged by the old leader, past the base, and not there. */
  readonly leftOut: readonly JournalEntry[];
  /** Their connection was lost before the answer. */
  readonly unanswered: { readonly present: number; readonly absent: number };
  /** Orders that the new leader acknowledged. */
  readonly placedAfter: number;
  /** Each is a failure: of an order, or of a number that was assigned twice. */
  readonly problems: readonly string[];
  readonly collisions: readonly string[];
}

type Fate = 'present' | 'absent';

export function judgeOrders(
  entries: readonly JournalEntry[],
  base: EpochLsn,
  found: readonly FoundOrder[],
): OrdersVerdict {
  const problems: string[] = twice(found);
  const byId = new Map(found.map((order) => [order.orderId, order]));
  const fates = new Map<JournalEntry, Fate>();
  const journaled = groupByOrder(entries);
  for (const [orderId, commits] of journaled) {
    judgeOrder(commits, byId.get(orderId) ?? null, base, fates, problems);
  }
  for (const orderId of byId.keys()) {
    if (!journaled.has(orderId)) problems.push(`order ${orderId} exists and no writer placed it`);
  }
  const count = (matches: (entry: JournalEntry) => boolean): number =>
    entries.filter(matches).length;
  const isPast = (entry: JournalEntry): boolean =>
    entry.acknowledgement !== null && !isRequired(entry, base);
  const isUnanswered = (entry: JournalEntry): boolean => entry.acknowledgement === null;
  return {
    acknowledged: count((entry) => entry.acknowledgement !== null),
    published: count((entry) => isRequired(entry, base)),
    presentPastBase: count((entry) => isPast(entry) && fates.get(entry) === 'present'),
    leftOut: entries.filter((entry) => isPast(entry) && fates.get(entry) === 'absent'),
    unanswered: {
      present: count((entry) => isUnanswered(entry) && fates.get(entry) === 'present'),
      absent: count((entry) => isUnanswered(entry) && fates.get(entry) === 'absent'),
    },
    placedAfter: count(
      ({ acknowledgement, state }) =>
        (acknowledgement?.at.epoch ?? 0) > base.epoch && state.status === 'placed',
    ),
    problems,
    collisions: collisions(entries),
  };
}

/**
 * A commit is below its token. So with a token at or below the base the commit is in the log; past
 * the base it may or may not be.
 */
function isRequired({ acknowledgement }: JournalEntry, base: EpochLsn): boolean {
  if (acknowledgement === null) return false;
  const { epoch, lsn } = acknowledgement.at;
  return epoch > base.epoch || (epoch === base.epoch && lsn <= base.lsn);
}

/** The order is as one of its commits left it: that one and all before it are there, none after. */
function judgeOrder(
  commits: readonly JournalEntry[],
  found: FoundOrder | null,
  base: EpochLsn,
  fates: Map<JournalEntry, Fate>,
  problems: string[],
): void {
  const reached = found === null ? -1 : commits.findLastIndex(({ state }) => same(state, found));
  const [first] = commits;
  if (found !== null && reached === -1) {
    const states = commits.map(({ state }) => describe(state)).join(' or ');
    problems.push(`order ${first?.orderId} is ${describe(found)}; its writer committed ${states}`);
  }
  for (const [index, commit] of commits.entries()) {
    fates.set(commit, index <= reached ? 'present' : 'absent');
    if (index <= reached || !isRequired(commit, base) || (found !== null && reached === -1)) {
      continue;
    }
    const is = found === null ? 'is missing' : `is still ${describe(found)}`;
    const token = commit.acknowledgement?.token;
    problems.push(`LOST: order ${commit.orderId} ${is}, and ${token} is in the log`);
  }
}

function same(a: OrderState, b: OrderState): boolean {
  return (
    a.status === b.status && a.lines === b.lines && a.pieces === b.pieces && a.total === b.total
  );
}

function describe({ status, lines, pieces, total }: OrderState): string {
  return `${status} with ${lines} lines, ${pieces} pieces, ${total}`;
}

function groupByOrder(entries: readonly JournalEntry[]): Map<string, JournalEntry[]> {
  const groups = new Map<string, JournalEntry[]>();
  for (const entry of entries) {
    const group = groups.get(entry.orderId);
    if (group === undefined) groups.set(entry.orderId, [entry]);
    else group.push(entry);
  }
  return groups;
}

function twice(found: readonly FoundOrder[]): string[] {
  const seen = new Set<string>();
  return found.flatMap(({ orderId }) => {
    if (seen.has(orderId)) return [`order ${orderId} exists twice`];
    seen.add(orderId);
    return [];
  });
}

/** No number of an identity column was assigned twice, not even that of a discarded write. */
function collisions(entries: readonly JournalEntry[]): string[] {
  const orders = new Set<string>();
  const customers = new Set<string>();
  return entries.flatMap(({ orderId, newCustomerId, state }) => {
    const given: string[] = [];
    if (state.status === 'placed') {
      if (orders.has(orderId)) given.push(`order number ${orderId} was assigned twice`);
      orders.add(orderId);
    }
    if (newCustomerId !== null) {
      if (customers.has(newCustomerId)) given.push(`customer ${newCustomerId} was assigned twice`);
      customers.add(newCustomerId);
    }
    return given;
  });
}
