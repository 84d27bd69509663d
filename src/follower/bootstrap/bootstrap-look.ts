/**
 * The first look of a new node at the topic. Flows in: a reader, and the place where the node is to
 * stand; flows out: the checkpoint that the node reads up to, the epochs that lead there, the
 * relations, and the state that the reading begins with. The last checkpoint is found from the end
 * of the log, so a leader need not be alive; the rest is in one partition as in all.
 */
import type { SchemaPayload } from '../../catalog/dump/schema-payload.ts';
import type {
  Checkpoint,
  EpochBegin,
  Point,
  RelationShape,
  UnfinishedTable,
} from '../../change/change.ts';
import { compareEpochLsn, type EpochLsn, formatEpochLsn } from '../../change/position.ts';
import { UnderstudyError } from '../../errors/understudy-error.ts';
import type { CommittedReader, Watermarks } from '../../topic/log.ts';
import { readLogEnd } from '../../topic/log-end.ts';
import type { LogEnd } from '../../topic/partition-tails.ts';
import type { RecordDecoder } from '../../topic/records/decoder.ts';
import {
  readSchemaRecord,
  type SchemaPart,
  schemaPartition,
  validParts,
} from '../../topic/records/schema-record.ts';
import { tailPartition } from '../../topic/tailer.ts';
import { relationsOf } from '../apply/apply-limit.ts';
import type { BootstrapState } from '../state/bootstrap-state.ts';
import { FirstLook } from './first-look.ts';
import { isWholeAt } from './horizon.ts';
import { PlaceSearch, type PlaceStart } from './place-search.ts';

interface LookParts {
  readonly reader: CommittedReader;
  readonly decoder: RecordDecoder;
  readonly streamId: string;
  readonly deleteRetentionMs: () => Promise<number>;
  readonly nowMs: () => number;
  /** Where the node is to stand; null for the end of the log. */
  readonly until: EpochLsn | null;
  /** From when on no record has been taken for a newer one; asked only for a place. */
  readonly keptFromMs: () => Promise<number>;
}

export interface LogLook {
  readonly state: BootstrapState;
  readonly epochs: readonly EpochBegin[];
  readonly relations: readonly RelationShape[];
  /** What makes their tables where there are none; null where they are made by hand. */
  readonly schema: SchemaPayload | null;
  /** Tables of the leader that are not in the stream, as the last point names them. */
  readonly uncovered: readonly string[];
}

export async function lookFirst(parts: LookParts): Promise<LogLook> {
  const { reader, decoder, streamId, nowMs } = parts;
  const watermarks = await reader.watermarks();
  const end = await readLogEnd(reader, decoder, watermarks);
  const { checkpoint, point } = end;
  if (checkpoint === null) {
    throw new UnderstudyError(
      'NOT_INITIALISED',
      'the topic holds no point that all its partitions have',
      'init did not end: run understudy destroy --yes, then understudy init.',
    );
  }
  const { until } = parts;
  const search = until === null ? null : new PlaceSearch(until, await parts.keptFromMs());
  const { look, schemaParts } = await readOnce(parts, watermarks[schemaPartition], search);
  const start = search?.start ?? null;
  if (until !== null && start === null && compareEpochLsn(until, checkpoint.at) < 0) {
    throw tooEarly(until, search?.earliest ?? null);
  }
  const begin = start === null ? endOf(end, checkpoint) : beginOf(start);
  const epochs = look.epochsTo(begin.checkpoint.at);
  const schema = readSchemaRecord(validParts(schemaParts, streamId, epochs))?.schema ?? null;
  const deleteRetentionMs = await parts.deleteRetentionMs();
  const firstOffsets = watermarks.map(({ lowWatermark }) => lowWatermark);
  const beganMs = nowMs();
  const state = {
    streamId,
    checkpoint: begin.checkpoint,
    checkpointAppendMs: begin.appendMs,
    isWhole: begin.isWhole,
    commitTimeMicros: begin.point?.commitTimeMicros ?? BigInt(beganMs) * 1_000n,
    unfinished: relationsOf(begin.unfinished),
    emptied: look.emptiedBelow(begin.checkpoint.at, epochs),
    firstOffsets,
    offsets: firstOffsets,
    appendMs: firstOffsets.map(() => 0),
    brokers: firstOffsets.map(() => null),
    beganMs,
    readMs: 0,
    rows: 0,
    deleteRetentionMs,
    horizon: null,
    isRebuild: false,
    conflicts: 0,
  };
  const uncovered = point?.uncovered ?? [];
  const relations = withUnwritten(look.relationsAt(epochs), schema);
  return { state, epochs, relations, schema, uncovered };
}

interface Begin {
  readonly checkpoint: Checkpoint;
  readonly appendMs: number | null;
  readonly isWhole: boolean;
  readonly point: Point | null;
  readonly unfinished: readonly UnfinishedTable[];
}

function endOf(end: LogEnd, checkpoint: Checkpoint): Begin {
  const { point, unfinished } = end;
  return { checkpoint, appendMs: null, isWhole: isWholeAt(end), point, unfinished };
}

function beginOf({ checkpoint, appendMs, point }: PlaceStart): Begin {
  return { checkpoint, appendMs, isWhole: true, point, unfinished: [] };
}

/** Of a place whose rows may have been replaced by younger ones. */
function tooEarly(until: EpochLsn, earliest: EpochLsn | null): UnderstudyError {
  const place = formatEpochLsn(until);
  const other =
    earliest === null
      ? 'There is no such place now: build the node at the end of the log (without --until).'
      : `The earliest place that can still be built is ${formatEpochLsn(earliest)}: ` +
        'understudy points tells the named ones.';
  return new UnderstudyError(
    'PREREQUISITE',
    `the log may no longer hold every row of ${place}: the topic keeps what was replaced since ` +
      'for less time than that (min.compaction.lag.ms)',
    other,
  );
}

/** A relation has no record before its first row. */
function withUnwritten(
  relations: readonly RelationShape[],
  schema: SchemaPayload | null,
): readonly RelationShape[] {
  const known = new Set(relations.map(({ id }) => id));
  return [...relations, ...(schema?.relations ?? []).filter(({ id }) => !known.has(id))];
}

/** All of one partition, up to its end as it was at the start. */
async function readOnce(
  { reader, decoder, streamId }: LookParts,
  watermark: Watermarks | undefined,
  search: PlaceSearch | null,
): Promise<{ readonly look: FirstLook; readonly schemaParts: readonly SchemaPart[] }> {
  const look = new FirstLook(streamId);
  const schemaParts: SchemaPart[] = [];
  if (watermark === undefined) return { look, schemaParts };
  const { partition, lowWatermark, lastStableOffset } = watermark;
  const stretch = { partition, start: lowWatermark, end: lastStableOffset };
  for await (const { decoded, records } of tailPartition({ reader, decoder }, stretch)) {
    for (const record of decoded) {
      look.take(record);
      search?.take(record);
    }
    schemaParts.push(...decoder.schemaParts(records));
  }
  return { look, schemaParts };
}
