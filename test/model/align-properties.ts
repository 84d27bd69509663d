/**
 * What a follower promises, as properties over random histories. Flows in: the rules it follows;
 * flows out: one property for logs that are whole, one for logs that lost or gained a record, one
 * for logs that were compacted under a follower that is late.
 */
import fc from 'fast-check';
import * as assert from 'uvu/assert';
import { compareEpochLsn, type EpochLsn } from '../../src/change/position.ts';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import type { StreamRecord } from '../../src/topic/records/stream-record.ts';
import { at } from '../support/builders.ts';
import { type AlignHistory, anyAlignHistory } from './align-histories.ts';
import { type AlignRules, AlignWorld, type Choice } from './align-world.ts';
import { compactionKey } from './compacting-log.ts';

const anyChoices: fc.Arbitrary<readonly Choice[]> = fc.array(fc.tuple(fc.nat(), fc.nat()), {
  maxLength: 60,
});
const anyWorld = fc.integer({ min: 1, max: 3 }).chain((partitions) => {
  return fc.tuple(anyAlignHistory(partitions), anyChoices, fc.array(fc.nat(), { maxLength: 3 }));
});

/** Rows are right at every step; exact stops are reached; at the end everything is there. */
export function following(rules: AlignRules): fc.IProperty<unknown> {
  return fc.property(anyWorld, ([history, choices, picks]) => {
    const world = new AlignWorld(rules, history);
    for (const choice of choices) world.step(choice);
    for (const stop of stopsOf(history, picks)) {
      if (compareEpochLsn(stop, world.at) < 0) continue;
      world.goTo({ kind: 'to', at: stop });
      assert.equal(world.at, stop, 'the follower is not at its exact stop');
    }
    world.goTo({ kind: 'none' });
    assert.equal(world.at, history.end, 'the follower does not reach the end');
  });
}

/** Commit records of whole batches, and the places right behind them. */
function stopsOf({ commits }: AlignHistory, picks: readonly number[]): EpochLsn[] {
  if (commits.length === 0) return [];
  return picks
    .map((pick) => {
      const commit = commits[pick % commits.length];
      return at(commit?.epoch ?? 1, Number(commit?.commitLsn ?? 0) + (pick % 2));
    })
    .sort(compareEpochLsn);
}

/** A record too few is a gap, one too many is damage; no row of its batch is applied. */
export function stopping(rules: AlignRules): fc.IProperty<unknown> {
  const any = fc.tuple(anyWorld, fc.nat(), fc.boolean());
  return fc.property(any, ([[history, choices], pick, doubled]) => {
    const victim = history.counted[pick % Math.max(1, history.counted.length)];
    fc.pre(victim !== undefined);
    const world = new AlignWorld(rules, history);
    world.replaceLog(history.partitions.map((records) => changed(records, victim, doubled)));
    const stop = errorOf(() => {
      for (const choice of choices) world.step(choice);
      world.goTo({ kind: 'none' });
    });
    assert.is(stop?.code, 'DAMAGED', 'nothing stopped the follower');
    assert.is(stop?.constructor.name === 'GapError', !doubled, 'a gap is taken for a surplus');
    const here = { epoch: victim.position.epoch, lsn: victim.position.commitLsn };
    assert.ok(compareEpochLsn(world.at, here) <= 0, 'it went past the record');
  });
}

function changed(
  records: readonly StreamRecord[],
  victim: StreamRecord,
  doubled: boolean,
): StreamRecord[] {
  const place = records.indexOf(victim);
  if (place < 0) return [...records];
  if (!doubled) return records.toSpliced(place, 1);
  const later = records.slice(place).map((record) => ({ ...record, offset: record.offset + 1n }));
  return [...records.slice(0, place + 1), ...later];
}

/** Rows are right, or the follower stops: compaction takes what a later record replaces. */
export function compacted(rules: AlignRules): fc.IProperty<unknown> {
  const any = fc.tuple(anyWorld, anyChoices, fc.array(fc.nat({ max: 40 }), { maxLength: 3 }));
  return fc.property(any, ([[history, before], after, heads]) => {
    const world = new AlignWorld(rules, history);
    for (const choice of before) world.step(choice);
    world.replaceLog(history.partitions.map((records, i) => compact(records, heads[i] ?? 0)));
    const stop = errorOf(() => {
      for (const choice of after) world.step(choice);
      world.goTo({ kind: 'none' });
    });
    if (stop === null) assert.equal(world.at, history.end, 'it neither stops nor goes on');
    else assert.is(stop.constructor.name, 'GapError', stop.message);
  });
}

function compact(records: readonly StreamRecord[], headFrom: number): StreamRecord[] {
  const last = new Map<string, StreamRecord>();
  const cleaned = records.slice(0, headFrom);
  for (const record of cleaned) last.set(compactionKey(record), record);
  return records.filter((record, i) => i >= headFrom || last.get(compactionKey(record)) === record);
}

/** What a follower stops with; whatever else is thrown is harm. */
function errorOf(run: () => void): UnderstudyError | null {
  try {
    run();
    return null;
  } catch (error) {
    if (error instanceof UnderstudyError) return error;
    throw error;
  }
}
