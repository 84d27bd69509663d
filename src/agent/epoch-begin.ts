/**
 * Writes the beginning of an epoch: one record in every partition, in one Kafka transaction. Flows
 * in: who begins what from where; flows out: the mark that the epoch's first point continues. It
 * counts only when all partitions hold it, and then voids what lies past its base.
 */
import type { EpochBegin, Mark } from '../change/change.ts';
import { UnderstudyError } from '../errors.ts';
import type { TransactionalProducer } from '../topic/log.ts';
import type { RecordEncoder } from '../topic/record-encoder.ts';

export async function writeEpochBegin(
  producer: TransactionalProducer,
  encoder: RecordEncoder,
  begin: EpochBegin,
  nowMs: number,
): Promise<Mark> {
  await producer.send(encoder.encodeEpochBegin(begin, BigInt(nowMs) * 1000n));
  const offsets = await producer.commit();
  return {
    at: { epoch: begin.epoch, lsn: begin.startLsn },
    nextOffsets: offsets.map((offset) => {
      if (offset !== null) return offset + 1n;
      throw new UnderstudyError('BUG', 'an epoch begin misses a partition', 'Please report this.');
    }),
  };
}
