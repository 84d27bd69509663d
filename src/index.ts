/**
 * The public API of this package, for programs that read the topic. It decodes records as any Kafka
 * client returns them, with schemas by their id; it connects to no server and reads no
 * configuration. Errors carry the documented codes. All other modules of the package are internal
 * and may change in any version.
 *
 * @example
 * import { RecordDecoder } from 'pg-understudy';
 *
 * const decoder = new RecordDecoder({
 *   schemaById: async (id) => {
 *     const answer = await fetch(`${registryUrl}/schemas/ids/${id}`);
 *     return JSON.parse((await answer.json()).schema);
 *   },
 * });
 * for (const record of await decoder.decode(fetched)) {
 *   if (record.kind !== 'row') continue;
 *   const { relationId, identity, value } = record;
 *   if (value === null) remove(relationId, identity);
 *   else put(relationId, identity, decoder.rowValues({ ...record, value }));
 * }
 */
import { packageVersion } from './package-files.ts';

/** Of this package, such as 0.1.0. */
export const version: string = packageVersion();

export type {
  Checkpoint,
  ColumnShape,
  EpochBegin,
  PgText,
  Point,
  RelationShape,
  RowOp,
} from './change/change.ts';
export { formatLsn, type Lsn, parseLsn } from './change/lsn.ts';
export {
  compareEpochLsn,
  comparePositions,
  type EpochLsn,
  formatEpochLsn,
  formatPosition,
  isCovered,
  type Position,
  parseEpochLsn,
  parsePosition,
} from './change/position.ts';
export { type ErrorCode, type ExitCode, errorTable, exitCodes } from './errors/codes.ts';
export { UnderstudyError } from './errors/understudy-error.ts';
export type { FetchedRecord } from './topic/log.ts';
export { RecordDecoder } from './topic/records/decoder.ts';
export type {
  EpochRecord,
  PointRecord,
  RelationRecord,
  RowRecord,
  StreamRecord,
  TruncateRecord,
} from './topic/records/stream-record.ts';
