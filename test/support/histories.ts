/**
 * Random histories of a topic: whole batches, torn ones, half and whole epoch begins, spread over
 * partitions. Flows in: fast-check's choices; flows out: the records of each partition, what a
 * follower must make of them, and an order in which they arrive.
 */
import fc from 'fast-check';
import { formatEpochLsn } from '../../src/change/position.ts';
import type { Aligned } from '../../src/follower/apply/stages.ts';
import type { StreamRecord } from '../../src/topic/records/stream-record.ts';
import { SketchedTopic } from './builders.ts';

type Step =
  | { readonly kind: 'batch'; readonly rows: readonly Row[] }
  /** Content and a point in the partitions that `point` says; then begins, the last one whole. */
  | {
      readonly kind: 'epoch';
      readonly rows: readonly Row[];
      readonly point: number;
      readonly halves: readonly number[];
      readonly startLsn: number;
    };

interface Row {
  /** How far the commit LSN is past the one before: 0 is another row of the same transaction. */
  readonly gap: number;
  readonly partition: number;
}

export interface History {
  readonly topic: SketchedTopic;
  /** What comes out, in order, as `shown` writes it. */
  readonly expected: readonly string[];
  /** Content of whole batches: losing one of them, or seeing one twice, is damage. */
  readonly counted: readonly StreamRecord[];
}

const anyRows = fc.array(
  fc.record({ gap: fc.integer({ min: 0, max: 3 }), partition: fc.nat({ max: 3 }) }),
  { maxLength: 6 },
);
/** A set of partitions as bits. */
const someOf = fc.nat({ max: 15 });

const anyStep: fc.Arbitrary<Step> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('batch' as const), rows: anyRows }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('epoch' as const),
      rows: anyRows,
      point: someOf,
      halves: fc.array(someOf, { maxLength: 3 }),
      startLsn: fc.integer({ min: 0, max: 60 }),
    }),
  },
);

export function anyHistory(partitions: number): fc.Arbitrary<History> {
  return fc.array(anyStep, { maxLength: 8 }).map((steps) => historyOf(partitions, steps));
}

/** Which partition gets how many records next; what is left arrives at the end. */
export function anyArrival(partitions: number): fc.Arbitrary<readonly [number, number][]> {
  return fc.array(fc.tuple(fc.nat({ max: partitions - 1 }), fc.integer({ min: 1, max: 5 })));
}

export function shown(aligned: Aligned): string {
  const { kind, checkpoint } = aligned;
  const offsets =
    aligned.kind !== 'batch'
      ? ''
      : aligned.partitions
          .map((records) => records.map(({ offset }) => offset).join(' '))
          .join('|');
  const next = checkpoint.nextOffsets.join(',');
  return `${kind} ${formatEpochLsn(checkpoint.at)} next ${next}: ${offsets}`;
}

/** Feeds the records in the order of arrival; `take` is called after each chunk. */
export function deliver(
  partitions: readonly (readonly StreamRecord[])[],
  arrival: readonly (readonly [number, number])[],
  take: (partition: number, records: readonly StreamRecord[]) => void,
): void {
  const sent = partitions.map(() => 0);
  const rest = partitions.map((records, i): [number, number] => [i, records.length]);
  for (const [partition, count] of [...arrival, ...rest]) {
    const from = sent[partition] ?? 0;
    const records = (partitions[partition] ?? []).slice(from, from + count);
    sent[partition] = from + records.length;
    take(partition, records);
  }
}

function historyOf(partitions: number, steps: readonly Step[]): History {
  const topic = new SketchedTopic(partitions, 10);
  const expected: string[] = [];
  const counted: StreamRecord[] = [];
  for (const step of steps) {
    const before = topic.partitions.map((records) => records.length);
    const end = putRows(topic, step.rows, partitions);
    const contents = topic.partitions.map((records, i) => records.slice(before[i]));
    if (step.kind === 'batch') {
      topic.point(end);
      counted.push(...contents.flat());
      const offsets = contents.map((records) => records.map(({ offset }) => offset).join(' '));
      expected.push(`batch ${marked(topic)}: ${offsets.join('|')}`);
      continue;
    }
    const torn = chosen(step.point, partitions);
    if (torn.length > 0 && torn.length < partitions) topic.point(end, {}, torn);
    for (const half of step.halves) {
      const only = chosen(half, partitions);
      if (only.length < partitions) topic.begin(topic.epoch + 1, step.startLsn, {}, only);
    }
    topic.begin(topic.epoch + 1, step.startLsn);
    expected.push(`epoch ${marked(topic)}: `);
  }
  return { topic, expected, counted };
}

/** The first row may commit exactly at the checkpoint. Gives an end past the last one. */
function putRows(topic: SketchedTopic, rows: readonly Row[], partitions: number): number {
  let commit = Number(topic.checkpoint.at.lsn);
  let ordinal = 0;
  for (const { gap, partition } of rows) {
    commit += gap;
    ordinal = gap === 0 ? ordinal + 1 : 0;
    const content = { kind: 'row', key: 'k', value: 'v' } as const;
    topic.put(partition % partitions, commit, ordinal, content);
  }
  return commit + 1;
}

function chosen(bits: number, partitions: number): number[] {
  return Array.from({ length: partitions }, (_, i) => i).filter((i) => (bits & (1 << i)) !== 0);
}

function marked({ checkpoint }: SketchedTopic): string {
  return `${formatEpochLsn(checkpoint.at)} next ${checkpoint.nextOffsets.join(',')}`;
}
