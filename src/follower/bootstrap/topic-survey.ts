/**
 * What has to be known of a log before the first row of a new node is applied: the checkpoint to
 * read up to, the epochs that lead there, the relations, and the state that the bootstrap begins
 * with. A reader and the LSN that the node is to stop at come in. Partition 0 is read once: what is
 * of interest in it is in every partition. The last checkpoint is found from the end of the log, so
 * no leader has to be alive.
 */
import type { SchemaPayload } from '../../catalog/dump/schema-payload.ts';
import type {
  Checkpoint,
  EpochBegin,
  Point,
  RelationId,
  RelationShape,
  SequencePosition,
  UnfinishedTable,
} from '../../change/change.ts';
import {
  compareEpochLsn,
  comparePositions,
  type EpochLsn,
  formatEpochLsn,
  isCovered,
  isVoid,
  type Position,
} from '../../change/position.ts';
import { noCommonPoint } from '../../errors/cluster.ts';
import { logTooYoung } from '../../errors/prerequisite.ts';
import { damagedLog, otherStream } from '../../errors/topic.ts';
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
import type {
  RelationRecord,
  RereadRecord,
  StreamRecord,
  TruncateRecord,
} from '../../topic/records/stream-record.ts';
import { tailPartition } from '../../topic/tailer.ts';
import { relationsOf } from '../apply/apply-portion.ts';
import type { BootstrapState, Emptied } from '../state/bootstrap-state.ts';
import { isWholeAt } from '../state/exactness.ts';
import { UnsavedSequences } from '../state/sequence-positions.ts';
import { CheckpointSearch, type StartCheckpoint } from './checkpoint-search.ts';

interface SurveyParts {
  readonly reader: CommittedReader;
  readonly decoder: RecordDecoder;
  readonly streamId: string;
  readonly deleteRetentionMs: () => Promise<number>;
  readonly nowMs: () => number;
  /** Where the node is to stop; null for the end of the log. */
  readonly until: EpochLsn | null;
  /** Since when no record was removed for a newer one; asked only where `until` is given. */
  readonly keptFromMs: () => Promise<number>;
}

/** What a bootstrap begins with. */
export interface BootstrapStart {
  readonly state: BootstrapState;
  readonly epochs: readonly EpochBegin[];
  readonly relations: readonly RelationShape[];
  /** Creates their tables where there are none; null where a person creates them. */
  readonly schema: SchemaPayload | null;
  /** How far the leader's sequences were last. */
  readonly sequences: readonly SequencePosition[];
  /** Tables of the leader that are not in the stream, as the last point names them. */
  readonly uncovered: readonly string[];
}

export async function surveyTopic(parts: SurveyParts): Promise<BootstrapStart> {
  const { reader, decoder, streamId, nowMs } = parts;
  const watermarks = await reader.watermarks();
  const end = await readLogEnd(reader, decoder, watermarks);
  const { checkpoint, point } = end;
  if (checkpoint === null) throw noCommonPoint();
  const { until } = parts;
  const search = until === null ? null : new CheckpointSearch(until, await parts.keptFromMs());
  const read = await readOnce(parts, watermarks[schemaPartition], search);
  const { survey, schemaParts, sequences } = read;
  search?.endsAt(checkpoint);
  const start = search?.start ?? null;
  if (until !== null && start === null && compareEpochLsn(until, checkpoint.at) < 0) {
    throw logTooYoung(until, search?.earliest ?? null);
  }
  const begin = start === null ? endOf(end, checkpoint) : beginOf(start);
  const epochs = survey.epochsTo(begin.checkpoint.at);
  // A node that stops earlier has the tables of then.
  const limit = until === null ? null : begin.checkpoint.at;
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
    emptied: new Map([
      ...survey.emptiedBelow(begin.checkpoint.at, epochs),
      ...survey.ended(epochs, limit),
    ]),
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
  const relations = withUnwritten(survey.relationsAt(epochs, limit), schema);
  return { state, epochs, relations, schema, sequences: sequences.all, uncovered };
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

function beginOf({ checkpoint, appendMs, point }: StartCheckpoint): Begin {
  return { checkpoint, appendMs, isWhole: true, point, unfinished: [] };
}

/** A relation has no record before its first row. */
function withUnwritten(
  relations: readonly RelationShape[],
  schema: SchemaPayload | null,
): readonly RelationShape[] {
  const known = new Set(relations.map(({ id }) => id));
  return [...relations, ...(schema?.relations ?? []).filter(({ id }) => !known.has(id))];
}

interface ReadOnce {
  readonly survey: TopicSurvey;
  readonly schemaParts: readonly SchemaPart[];
  readonly sequences: UnsavedSequences;
}

/** All of one partition, up to its end as it was at the start. */
async function readOnce(
  { reader, decoder, streamId }: SurveyParts,
  watermark: Watermarks | undefined,
  search: CheckpointSearch | null,
): Promise<ReadOnce> {
  const survey = new TopicSurvey(streamId);
  const schemaParts: SchemaPart[] = [];
  const sequences = new UnsavedSequences();
  if (watermark === undefined) return { survey, schemaParts, sequences };
  const { partition, lowWatermark, lastStableOffset } = watermark;
  const stretch = { partition, start: lowWatermark, end: lastStableOffset };
  for await (const { decoded, records } of tailPartition({ reader, decoder }, stretch)) {
    for (const record of decoded) {
      survey.take(record);
      search?.take(record);
    }
    schemaParts.push(...decoder.schemaParts(records));
    sequences.add(decoder.sequences(records));
  }
  return { survey, schemaParts, sequences };
}

/**
 * The same without I/O. Flows in: all records of one partition; flows out: the epochs up to a
 * checkpoint, the newest shape of each relation, and the position below which the rows of each
 * relation were removed. Values of rows are not decoded.
 */
export class TopicSurvey {
  readonly #streamId: string;
  readonly #begins = new Map<number, EpochBegin>();
  /** In the order of positions. A table has one for each epoch, and the newest may be void. */
  readonly #relations = new Map<RelationId, RelationRecord[]>();
  readonly #emptying: (TruncateRecord | RereadRecord)[] = [];

  constructor(streamId: string) {
    this.#streamId = streamId;
  }

  take(record: StreamRecord): void {
    if (record.kind === 'relation') {
      const { id } = record.relation;
      const known = this.#relations.get(id) ?? [];
      known.push(record);
      this.#relations.set(id, known);
    }
    if (record.kind === 'truncate' || record.kind === 'reread') this.#emptying.push(record);
    if (record.kind !== 'epoch') return;
    const { begin } = record;
    if (begin.streamId !== this.#streamId) throw replaced(begin.streamId, this.#streamId);
    this.#begins.set(begin.epoch, begin);
  }

  /** The epochs that lead to the checkpoint, oldest first; none whose begin was never whole. */
  epochsTo(checkpoint: EpochLsn): readonly EpochBegin[] {
    const epochs: EpochBegin[] = [];
    for (let at: EpochLsn | null = checkpoint; at !== null; ) {
      const begin: EpochBegin | undefined = this.#begins.get(at.epoch);
      if (begin === undefined) throw withoutBegin(at);
      epochs.unshift(begin);
      at = begin.base;
    }
    return epochs;
  }

  /**
   * As the newest record that is not void describes them. Where compaction has left a void one
   * only, that is taken: the table was the same, or the epoch would not have continued with it.
   * With a limit, records past it do not count.
   */
  relationsAt(
    epochs: readonly EpochBegin[],
    limit: EpochLsn | null = null,
  ): readonly RelationShape[] {
    return this.#newest(epochs, limit).map(({ relation }) => relation);
  }

  /** Relations that have ended: none of their rows, at any position, is a row of a table. */
  ended(epochs: readonly EpochBegin[], limit: EpochLsn | null): Emptied {
    const ended = this.#newest(epochs, limit).filter(({ relation }) => relation.dropped);
    // rule: ended-relation-has-no-rows
    return new Map(ended.map(({ relation, position }) => [relation.id, position]));
  }

  #newest(epochs: readonly EpochBegin[], limit: EpochLsn | null): readonly RelationRecord[] {
    return [...this.#relations.values()].flatMap((records) => {
      const counting = records.findLast(({ position }) => {
        return !isVoid(position, epochs) && (limit === null || isCovered(position, limit));
      });
      return counting ?? records.findLast(({ relation }) => !relation.dropped) ?? [];
    });
  }

  /**
   * Where each relation was emptied last below the checkpoint: by a truncate, or where a resnapshot
   * of it begins, behind which all of its rows follow once more. Compaction keeps each of these
   * records.
   */
  emptiedBelow(checkpoint: EpochLsn, epochs: readonly EpochBegin[]): Emptied {
    const emptied = new Map<RelationId, Position>();
    for (const { relationId, position } of this.#emptying) {
      // rule: emptied-below-checkpoint
      if (!isCovered(position, checkpoint) || isVoid(position, epochs)) continue;
      const known = emptied.get(relationId);
      // rule: last-emptying-counts
      if (known !== undefined && comparePositions(known, position) > 0) continue;
      emptied.set(relationId, position);
    }
    return emptied;
  }
}

function replaced(found: string, expected: string): Error {
  const what = `the topic belongs to the stream ${found}, the control log to ${expected}`;
  return otherStream(what, { found, expected });
}

function withoutBegin(at: EpochLsn): Error {
  const text = formatEpochLsn(at);
  return damagedLog(`the topic has no begin of epoch ${at.epoch}, which holds ${text}`, {
    at: text,
  });
}
