/**
 * Judges a whole topic by itself. Flows in: every record of every partition in offset order,
 * committed or not; flows out: violations and the epochs. It follows the words of the protocol and
 * none of the product's code that reads a topic, so that both would have to err alike. Pure.
 */
import type { Checkpoint, EpochBegin, Point } from '../../../src/change/change.ts';
import {
  compareEpochLsn,
  comparePositions,
  type EpochLsn,
  formatEpochLsn,
  formatPosition,
  isCovered,
  type Position,
} from '../../../src/change/position.ts';
import type { KnownEpoch } from './epochs.ts';
import { Findings, type Violation } from './violation.ts';

export interface TopicRecord {
  readonly partition: number;
  readonly offset: bigint;
  readonly committed: boolean;
  readonly kind: string;
  /** Null on records that say nothing of the stream. */
  readonly position: Position | null;
  readonly relation: string;
  readonly key: string;
  readonly isTombstone: boolean;
  readonly point: Point | null;
  readonly begin: EpochBegin | null;
  /** Whether its value carries the checkpoint of what was rolled back. */
  readonly isGhost: boolean;
}

export type Partitions = readonly (readonly TopicRecord[])[];

export interface TopicVerdict {
  readonly violations: readonly Violation[];
  readonly epochs: readonly KnownEpoch[];
  /** Live keys of each relation, as who folds the topic finds them. */
  readonly liveKeys: ReadonlyMap<string, number>;
}

export function judgeTopic(partitions: Partitions): TopicVerdict {
  const findings = new Findings();
  const begins = wholeBegins(partitions, findings);
  for (const records of partitions) {
    judgeEpochs(records, findings);
    judgeOrder(records, findings);
    for (const record of records) {
      if (record.isGhost) findings.add('I6', 'a rolled-back row is in the topic', place(record));
    }
  }
  const live = partitions.map((records) =>
    records.filter((one) => one.committed && !isBeside(one) && !isVoid(one, begins)),
  );
  const checkpoints = live.map((records) => judgePoints(records, findings));
  judgeAlike(checkpoints, findings);
  return { violations: findings.violations, epochs: begins, liveKeys: liveKeysOf(live) };
}

function place({ partition, offset, kind, position }: TopicRecord): string {
  const at = position === null ? 'nowhere' : formatPosition(position);
  return `${kind} ${at} at partition ${partition}, offset ${offset}`;
}

/** An epoch counts when all partitions hold its begin; then all must say the same. */
function wholeBegins(partitions: Partitions, findings: Findings): readonly EpochBegin[] {
  const found = partitions.map(
    (records) =>
      new Map(
        records.flatMap(({ committed, begin }) =>
          committed && begin ? [[begin.epoch, begin]] : [],
        ),
      ),
  );
  const whole: EpochBegin[] = [];
  for (const [epoch, begin] of found[0] ?? []) {
    const others = found.map((begins) => begins.get(epoch));
    if (!others.every((other) => other !== undefined)) continue;
    whole.push(begin);
    const differs = others.find((other) => textOf(other) !== textOf(begin));
    if (differs === undefined) continue;
    findings.add('I5', 'an epoch begins in two ways', `${textOf(begin)}; ${textOf(differs)}`);
  }
  return whole.sort((a, b) => a.epoch - b.epoch);
}

function textOf({ epoch, leader, base, startLsn }: EpochBegin): string {
  const from = base === null ? 'nothing' : formatEpochLsn(base);
  return `epoch ${epoch} of ${leader} from ${from}, at ${startLsn}`;
}

/** Aborted records count: who was fenced can append nothing at all. */
function judgeEpochs(records: readonly TopicRecord[], findings: Findings): void {
  let begun = 0;
  for (const record of records) {
    const { position, begin } = record;
    if (position !== null && position.epoch < begun) {
      const late = `${place(record)}, after epoch ${begun} had begun`;
      findings.add('I5', 'a lower epoch appended after a higher one had begun', late);
    }
    if (begin !== null && begin.epoch <= begun) {
      findings.add('I5', 'an epoch begins again or late', `${place(record)}, after ${begun}`);
    }
    if (begin !== null) begun = Math.max(begun, begin.epoch);
  }
}

/** They have no position in the stream, but their epoch counts: leaders write them. */
function isBeside({ kind }: TopicRecord): boolean {
  return kind === 'fence' || kind === 'schema' || kind === 'sequence';
}

/** A record that is published twice comes at a position that was there before. */
function judgeOrder(records: readonly TopicRecord[], findings: Findings): void {
  const last = new Map<number, TopicRecord>();
  for (const record of records) {
    const { committed, position } = record;
    if (!committed || position === null || isBeside(record)) continue;
    const before = last.get(position.epoch);
    if (before?.position && comparePositions(before.position, position) >= 0) {
      const twice = `${place(record)}, after ${place(before)}`;
      findings.add('I2', 'a position comes again', twice);
    }
    last.set(position.epoch, record);
  }
}

/** The begin of a whole epoch voids what lower epochs have past its base. */
function isVoid(record: TopicRecord, begins: readonly EpochBegin[]): boolean {
  const { position, point, begin } = record;
  if (position === null) return false;
  if (begin !== null && !begins.some(({ epoch }) => epoch === begin.epoch)) return true;
  return begins.some(({ epoch, base }) => {
    if (base === null || position.epoch >= epoch) return false;
    if (point === null && begin === null) return !isCovered(position, base);
    return compareEpochLsn({ epoch: position.epoch, lsn: position.commitLsn }, base) > 0;
  });
}

interface PlacedCheckpoint {
  readonly at: EpochLsn;
  readonly offset: bigint;
  readonly previous: Checkpoint | null;
}

/** Every point counts what lies before it and names the checkpoint that it continues. */
function judgePoints(
  records: readonly TopicRecord[],
  findings: Findings,
): readonly PlacedCheckpoint[] {
  const checkpoints: PlacedCheckpoint[] = [];
  let content: TopicRecord[] = [];
  for (const record of records) {
    const { position, point, begin, offset } = record;
    if (position === null) continue;
    const at = { epoch: position.epoch, lsn: position.commitLsn };
    const checkpoint = checkpoints.at(-1);
    if (point !== null) {
      judgePoint(record, point, checkpoint, content, findings);
      checkpoints.push({ at, offset, previous: point.previous });
    } else if (begin !== null) {
      judgeBegin(record, begin, checkpoint, content, findings);
      checkpoints.push({ at, offset, previous: null });
    } else {
      content.push(record);
      continue;
    }
    content = [];
  }
  const [stray] = content;
  if (stray !== undefined) {
    findings.add('I10', 'records stand past the last point', `${content.length}, ${place(stray)}`);
  }
  return checkpoints;
}

function judgePoint(
  record: TopicRecord,
  point: Point,
  checkpoint: PlacedCheckpoint | undefined,
  content: readonly TopicRecord[],
  findings: Findings,
): void {
  const counted = point.counts[record.partition];
  if (counted !== content.length) {
    const sum = `${place(record)} counts ${counted}, ${content.length} are there`;
    findings.add('I10', 'a point does not add up', sum);
  }
  const previous = formatEpochLsn(point.previous.at);
  const is = checkpoint === undefined ? 'nothing' : formatEpochLsn(checkpoint.at);
  if (previous !== is) {
    findings.add('I10', 'a point continues another', `${place(record)}: ${previous}, not ${is}`);
  }
  const next = point.previous.nextOffsets[record.partition];
  if (checkpoint !== undefined && previous === is && next !== checkpoint.offset + 1n) {
    const offsets = `${place(record)}: ${next}, not ${checkpoint.offset + 1n}`;
    findings.add('I10', 'a point misplaces the one before it', offsets);
  }
  for (const one of content) {
    const at = one.position;
    if (at === null || checkpoint === undefined) continue;
    const isOwn = at.epoch === point.epoch && at.commitLsn < point.upto;
    if (isOwn && at.commitLsn >= checkpoint.at.lsn) continue;
    findings.add('I10', 'a record is not its batch’s own', `${place(one)} before ${place(record)}`);
  }
}

function judgeBegin(
  record: TopicRecord,
  begin: EpochBegin,
  checkpoint: PlacedCheckpoint | undefined,
  content: readonly TopicRecord[],
  findings: Findings,
): void {
  const [stray] = content;
  if (stray !== undefined) {
    const what = `${place(stray)} before ${place(record)}`;
    findings.add('I10', 'records without a point stand before an epoch', what);
  }
  const base = begin.base === null ? 'nothing' : formatEpochLsn(begin.base);
  const is = checkpoint === undefined ? 'nothing' : formatEpochLsn(checkpoint.at);
  if (base !== is) {
    findings.add(
      'I5',
      'an epoch continues another checkpoint',
      `${place(record)}: ${base}, not ${is}`,
    );
  }
}

function judgeAlike(
  checkpoints: readonly (readonly PlacedCheckpoint[])[],
  findings: Findings,
): void {
  const texts = checkpoints.map((placed) => placed.map(({ at }) => formatEpochLsn(at)));
  const [first = [], ...others] = texts;
  for (const [at, other] of others.entries()) {
    const length = Math.max(first.length, other.length);
    const differs = Array.from({ length }, (_, i) => i).find((i) => first[i] !== other[i]);
    if (differs === undefined) continue;
    const what =
      `checkpoint ${differs} is ${first[differs] ?? 'missing'} in partition 0, ` +
      `${other[differs] ?? 'missing'} in partition ${at + 1}`;
    findings.add('I4', 'a batch is in some partitions only', what);
  }
}

function liveKeysOf(live: Partitions): ReadonlyMap<string, number> {
  const last = new Map<string, TopicRecord>();
  for (const records of live) {
    for (const record of records) if (record.kind === 'row') last.set(record.key, record);
  }
  const counts = new Map<string, number>();
  for (const { relation, isTombstone } of last.values()) {
    counts.set(relation, (counts.get(relation) ?? 0) + (isTombstone ? 0 : 1));
  }
  return counts;
}
