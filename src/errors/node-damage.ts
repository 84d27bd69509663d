/**
 * Evidence against one node alone (NODE_DAMAGED): a row that it should have and has not, or an
 * answer of a broker that cannot be right. It says nothing of other nodes or of the topic: those
 * go on, and may be promoted. Each is found a second time before an agent believes it.
 */
import type { RelationId } from '../change/change.ts';
import { type EpochLsn, formatEpochLsn } from '../change/position.ts';
import { type ErrorFacts, UnderstudyError } from './understudy-error.ts';

const rebuildHint =
  'A session may have changed rows of this node. Rebuild it from the log: `understudy rebuild ' +
  '<node>`. Or start its agent again and compare: `understudy verify <node> --repair`';

interface PartialRecord {
  readonly relationId: RelationId;
  readonly partition: number;
  readonly offset: bigint;
}

/** The log holds the delete of the row, and then a change of it. */
export function partialOfDeletedRow(record: PartialRecord): UnderstudyError {
  return ofRow(record, 'that is deleted');
}

/** Every earlier state of the row was applied, and the table does not hold it. */
export function partialWithoutBase(record: PartialRecord): UnderstudyError {
  return ofRow(record, 'that this node does not have');
}

function ofRow({ relationId, partition, offset }: PartialRecord, what: string): UnderstudyError {
  const record = `the record at partition ${partition}, offset ${offset}`;
  return new UnderstudyError(
    'NODE_DAMAGED',
    `${record} changes a row of ${relationId} ${what}`,
    rebuildHint,
    undefined,
    { relation: relationId, partition, offset: String(offset) },
  );
}

/** Whether it is a node's own rows that are wrong, not what a broker answered. */
export function isOfRows({ code, facts }: UnderstudyError): boolean {
  return code === 'NODE_DAMAGED' && facts['relation'] !== undefined;
}

/** A reader fetched from an offset that the log does not hold, and never resets by itself. */
export function offsetMissing(what: string, facts: ErrorFacts, cause: unknown): UnderstudyError {
  return new UnderstudyError(
    'NODE_DAMAGED',
    what,
    'Records that this node has not read were deleted from the topic. Rebuild it from the log: ' +
      '`understudy rebuild <node>`. If the topic was deleted and re-created, give the nodes new ' +
      'databases and initialise the cluster again.',
    cause,
    facts,
  );
}

/** `batch` names it: the batch at offset 7 of shop.changes partition 0. */
export function damagedBatch(batch: string, what: string): UnderstudyError {
  return new UnderstudyError(
    'NODE_DAMAGED',
    `${batch} ${what}`,
    'It was fetched twice. Check the disks of the brokers and the network to them; move the ' +
      'leader of the partition to a healthy replica, then start the agent again.',
  );
}

/** Where a repaired topic lacks records: `after` is the last checkpoint before them. */
export function behindRepair(after: EpochLsn, cause: unknown): UnderstudyError {
  const at = formatEpochLsn(after);
  return new UnderstudyError(
    'STALE',
    `this node is at ${at}, and the topic lacks records behind it: that damage was closed`,
    'Build it again from the log: `understudy rebuild <node>`. With rebuild: swap or in-place in ' +
      'understudy.yaml its agent does so by itself.',
    cause,
    { at },
  );
}
