/**
 * Writes the beginning of an epoch: one record in every partition, in one Kafka transaction, with
 * the schema that it begins with where there is one. Flows in: who begins what from where; flows
 * out: the checkpoint that the epoch's first point continues. It
 * counts only when all partitions hold it, and then voids what lies past its base. Nobody leads an
 * epoch whose begin cannot be read: a crash could still end it as never written, and what clients
 * wrote meanwhile would lie before the begin that is written in its place.
 */
import type { Checkpoint, EpochBegin } from '../../change/change.ts';
import type { CommittedReader, OutgoingRecord, TransactionalProducer } from '../../topic/log.ts';
import { commitReadably } from '../../topic/log-end.ts';
import type { RecordEncoder } from '../../topic/records/encoder.ts';
import type { Clock } from '../../waiting.ts';

export async function writeEpochBegin(
  producer: TransactionalProducer,
  reader: CommittedReader,
  encoder: RecordEncoder,
  begin: EpochBegin,
  clock: Clock,
  schema: readonly OutgoingRecord[] = [],
): Promise<Checkpoint> {
  // The begin comes last: the offsets behind it are the checkpoint.
  const records = [...schema, ...encoder.encodeEpochBegin(begin, BigInt(clock.nowMs()) * 1000n)];
  const { offsets } = await commitReadably(producer, records, reader, clock);
  return {
    at: { epoch: begin.epoch, lsn: begin.startLsn },
    nextOffsets: offsets.map((offset) => offset + 1n),
  };
}
