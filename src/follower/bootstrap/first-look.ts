/**
 * What has to be known of a log before its first row is applied: which epochs count, by whose bases
 * void records are told, what the relations are, and where each was emptied last. Flows in: all
 * records of one partition, which has what every partition has of these; flows out: the epochs up
 * to a checkpoint, the newest shape of each relation, and below which position its rows are no
 * more. Pure: no I/O. Values of rows are not looked into.
 */
import type { EpochBegin, RelationId, RelationShape } from '../../change/change.ts';
import {
  comparePositions,
  type EpochLsn,
  formatEpochLsn,
  isCovered,
  isVoid,
  type Position,
} from '../../change/position.ts';
import { UnderstudyError } from '../../errors/understudy-error.ts';
import type {
  RelationRecord,
  RereadRecord,
  StreamRecord,
  TruncateRecord,
} from '../../topic/records/stream-record.ts';

/** A relation has no row of a lower position. */
export type Emptied = ReadonlyMap<RelationId, Position>;

export class FirstLook {
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
    if (begin.streamId !== this.#streamId) throw otherStream(begin.streamId, this.#streamId);
    this.#begins.set(begin.epoch, begin);
  }

  /**
   * The reigns that lead to the checkpoint, oldest first; one that never was whole is not among
   * them.
   */
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
   * As the newest record that counts describes them. Where compaction has left a void one only,
   * that stands for it: the table was the same, or the epoch would not have gone on with it.
   */
  relationsAt(epochs: readonly EpochBegin[]): readonly RelationShape[] {
    return [...this.#relations.values()].flatMap((records) => {
      const counting = records.findLast(({ position }) => !isVoid(position, epochs));
      const record = counting ?? records.at(-1);
      return record === undefined ? [] : [record.relation];
    });
  }

  /**
   * By a truncate, or where a table is read anew: all of its rows come again behind that. What
   * counts below the checkpoint; compaction keeps each of these records.
   */
  emptiedBelow(checkpoint: EpochLsn, epochs: readonly EpochBegin[]): Emptied {
    const emptied = new Map<RelationId, Position>();
    for (const { relationId, position } of this.#emptying) {
      if (!isCovered(position, checkpoint) || isVoid(position, epochs)) continue;
      const known = emptied.get(relationId);
      if (known !== undefined && comparePositions(known, position) > 0) continue;
      emptied.set(relationId, position);
    }
    return emptied;
  }
}

function otherStream(found: string, wanted: string): UnderstudyError {
  return new UnderstudyError(
    'TOPIC_MISMATCH',
    `the topic belongs to the stream ${found}, the control log to ${wanted}`,
    'One of the two topics was replaced: destroy the cluster and init it again.',
  );
}

function withoutBegin(at: EpochLsn): UnderstudyError {
  return new UnderstudyError(
    'DAMAGED',
    `the topic has no begin of epoch ${at.epoch}, which holds ${formatEpochLsn(at)}`,
    'Keep the topic for analysis; destroy the cluster and init it again.',
  );
}
