/**
 * Random histories of a leader, and what must hold at their end. Takes the rules that the leader
 * follows; gives a property: the batches that a follower's aligner finds in the topic are the
 * transactions of the WAL, each once, in order, whole, with labels at their ends that the control
 * log has.
 */
import fc from 'fast-check';
import * as assert from 'uvu/assert';
import { comparePositions } from '../../src/change/position.ts';
import { Aligner } from '../../src/follower/apply/aligner.ts';
import type { AlignedBatch } from '../../src/follower/apply/stages.ts';
import type { RowRecord } from '../../src/topic/records/stream-record.ts';
import { streamId } from '../support/builders.ts';
import type { SourceTransaction } from './model-wal.ts';
import { type Choice, type PublishRules, PublishWorld } from './publish-world.ts';

const faults = 4;
const anyChoices: fc.Arbitrary<readonly Choice[]> = fc.array(fc.tuple(fc.nat(), fc.nat()), {
  minLength: 20,
  maxLength: 120,
});

export function publishing(rules: PublishRules): fc.IAsyncProperty<unknown> {
  return fc.asyncProperty(fc.boolean(), anyChoices, async (idles, choices) => {
    const world = new PublishWorld(rules, idles, faults);
    try {
      for (const choice of choices) await world.step(choice);
      await world.finish();
    } finally {
      world.end();
    }
    const { transactions } = world.postgres;
    const batches = await wholeBatches(world);
    assert.equal(contentOf(batches), transactions.flatMap(rowsOf), 'the log is not the WAL');
    const labelled = transactions.filter(({ label }) => label !== null);
    const labels = labelled.map(({ label, commitEndLsn }) => `${label} at ${commitEndLsn}`);
    const named = batches.flatMap(({ point: { label, upto } }) => {
      return label === null ? [] : [`${label} at ${upto}`];
    });
    assert.equal(named, labels, 'labels do not end their batches');
    const recorded = [...world.labels].map(([label, upto]) => `${label} at ${upto}`);
    assert.equal(recorded.sort(), labels.sort(), 'the control log does not have every label');
  });
}

/** As a follower gets them from the first whole epoch begin on; throws where counts are wrong. */
async function wholeBatches({ topic }: PublishWorld): Promise<AlignedBatch[]> {
  const tails = await topic.tails();
  const begins = tails.map(({ records }) => records.filter((record) => record.kind === 'epoch'));
  const whole = begins[0]?.find(({ begin: { epoch } }) => {
    return begins.every((others) => others.some(({ begin }) => begin.epoch === epoch));
  });
  if (whole === undefined) throw new Error('the log has no beginning');
  const { epoch, startLsn } = whole.begin;
  const offsets = begins.map((others) => {
    return (others.find(({ begin }) => begin.epoch === epoch)?.offset ?? 0n) + 1n;
  });
  const aligner = new Aligner(streamId, { at: { epoch, lsn: startLsn }, nextOffsets: offsets });
  for (const { partition, records } of tails) {
    aligner.push(
      partition,
      records.filter(({ offset }) => offset >= (offsets[partition] ?? 0n)),
    );
  }
  const batches: AlignedBatch[] = [];
  for (let next = aligner.next(); next !== null; next = aligner.next()) {
    if (next.kind === 'batch') batches.push(next);
  }
  return batches;
}

function contentOf(batches: readonly AlignedBatch[]): string[] {
  return batches.flatMap(({ point, partitions }) => {
    const rows = partitions.flat().filter((record): record is RowRecord => record.kind === 'row');
    for (const { position } of rows) {
      assert.ok(position.commitLsn < point.upto, 'a row commits at or past the end of its batch');
    }
    return rows
      .sort((a, b) => comparePositions(a.position, b.position))
      .map(({ position, identity, value }) => shown(position.commitLsn, identity[0], value));
  });
}

function rowsOf({ commitLsn, rows }: SourceTransaction): string[] {
  return rows.map(({ key, value }) => shown(commitLsn, key, value));
}

function shown(commitLsn: bigint, key: string | undefined, value: unknown): string {
  return `${commitLsn} ${key} ${value === null ? 'deleted' : 'written'}`;
}
