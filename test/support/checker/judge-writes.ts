/**
 * Compares the journal of the clients with what the nodes hold at the end. Flows in: entries,
 * epochs, and the contents of every node at one common point; flows out: violations, and the
 * writes that a failover left out, which must lie past the base of the epoch after it. Pure.
 */
import { formatEpochLsn } from '../../../src/change/position.ts';
import { type Entry, nameOf } from '../history.ts';
import { fateOf, type KnownEpoch } from './epochs.ts';
import { Findings, type Violation } from './violation.ts';

export interface Contents {
  readonly node: string;
  /** How often each thing is there. */
  readonly things: ReadonlyMap<string, number>;
  readonly counters: ReadonlyMap<string, bigint>;
  readonly lists: ReadonlyMap<string, readonly string[]>;
}

export interface WritesVerdict {
  readonly violations: readonly Violation[];
  /** Acknowledged, past the base of a failover, and gone. */
  readonly lost: readonly string[];
}

export function judgeWrites(
  entries: readonly Entry[],
  nodes: readonly Contents[],
  epochs: readonly KnownEpoch[],
): WritesVerdict {
  const findings = new Findings();
  const lost = new Set<string>();
  judgeAcknowledgers(entries, epochs, findings);
  for (const node of nodes) {
    for (const entry of entries) judgeEntry(entry, node, epochs, findings, lost);
    judgeStrangers(entries, node, findings);
    judgeCounters(entries, node, epochs, findings);
    judgeLists(entries, node, findings);
  }
  return { violations: findings.violations, lost: [...lost] };
}

/** A token names the epoch that the server thought it was in when it acknowledged. */
function judgeAcknowledgers(
  entries: readonly Entry[],
  epochs: readonly KnownEpoch[],
  findings: Findings,
): void {
  for (const entry of entries) {
    if (entry.token === null) continue;
    const ofToken = epochs.find(({ epoch }) => epoch === entry.token?.epoch);
    const where = `${nameOf(entry)}, acknowledged at ${formatEpochLsn(entry.token)}`;
    if (ofToken === undefined) findings.add('I5', 'a write was acknowledged in no epoch', where);
    else if (ofToken.leader !== entry.node) {
      const who = `${where} by ${entry.node}; the leader of the epoch is ${ofToken.leader}`;
      findings.add('I5', 'a node acknowledged for an epoch that is not its own', who);
    }
  }
}

function judgeEntry(
  entry: Entry,
  { node, things }: Contents,
  epochs: readonly KnownEpoch[],
  findings: Findings,
  lost: Set<string>,
): void {
  const held = entry.adds.filter((thing) => (things.get(thing) ?? 0) > 0);
  for (const thing of held) {
    const times = things.get(thing) ?? 0;
    if (times > 1)
      findings.add('I2', 'a thing is there twice', `${thing} ${times} times on ${node}`);
    if (entry.outcome !== 'fail') continue;
    findings.add('I6', 'what was rolled back is there', `${thing} on ${node}`);
  }
  if (held.length > 0 && held.length < entry.adds.length) {
    const whole = `${nameOf(entry)} on ${node}: ${held.length} of ${entry.adds.length} things`;
    findings.add('I4', 'a transaction is there in part', whole);
  }
  if (entry.outcome !== 'ok' || held.length > 0 || entry.adds.length === 0) return;
  const at = entry.token === null ? 'an unknown LSN' : formatEpochLsn(entry.token);
  const gone = `${entry.adds[0]}, acknowledged at ${at}`;
  if (fateOf(entry.token, epochs) === 'survives') {
    findings.add('I1', 'an acknowledged write is lost', `${gone}, is not on ${node}`);
  } else lost.add(gone);
}

function judgeStrangers(
  entries: readonly Entry[],
  { node, things }: Contents,
  findings: Findings,
): void {
  const known = new Set(entries.flatMap(({ adds }) => adds));
  for (const thing of things.keys()) {
    if (!known.has(thing))
      findings.add('I6', 'nobody committed what is there', `${thing} on ${node}`);
  }
}

/** Between the changes that had to survive and those that may have been committed. */
function judgeCounters(
  entries: readonly Entry[],
  { node, counters }: Contents,
  epochs: readonly KnownEpoch[],
  findings: Findings,
): void {
  const least = new Map<string, bigint>();
  const most = new Map<string, bigint>();
  for (const entry of entries) {
    if (entry.outcome === 'fail') continue;
    const counts = entry.outcome === 'ok' && fateOf(entry.token, epochs) === 'survives';
    for (const counter of entry.raises) {
      most.set(counter, (most.get(counter) ?? 0n) + 1n);
      if (counts) least.set(counter, (least.get(counter) ?? 0n) + 1n);
    }
  }
  for (const [counter, floor] of least) {
    const is = counters.get(counter) ?? 0n;
    if (is >= floor) continue;
    const short = `${counter} is ${is} on ${node}, after ${floor} acknowledged changes`;
    findings.add('I1', 'an acknowledged change is lost', short);
  }
  for (const [counter, is] of counters) {
    const ceiling = most.get(counter) ?? 0n;
    if (is <= ceiling) continue;
    const over = `${counter} is ${is} on ${node}, after ${ceiling} changes`;
    findings.add('I2', 'a change was made twice', over);
  }
}

/** What a transaction that is there has read of a list is how the list begins. */
function judgeLists(
  entries: readonly Entry[],
  { node, lists }: Contents,
  findings: Findings,
): void {
  for (const entry of entries) {
    if (entry.outcome === 'fail') continue;
    for (const { list, elements } of entry.reads) {
      const is = lists.get(list) ?? [];
      const own = elements.at(-1);
      if (own === undefined || !is.includes(own)) continue;
      const differs = elements.findIndex((element, at) => is[at] !== element);
      if (differs === -1) continue;
      const order =
        `list ${list} on ${node}: place ${differs} holds ${is[differs]}, ` +
        `${nameOf(entry)} read ${elements[differs]} there`;
      findings.add('I2', 'a list has another order than it had', order);
    }
  }
}
