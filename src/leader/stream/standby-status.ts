/**
 * The standby status update of the streaming replication protocol, the one message that lets
 * Postgres discard WAL. Takes exact LSNs; gives the 34 bytes that Postgres reads. Nothing is added
 * to an LSN: the server may discard everything below it, strictly.
 */
import type { Lsn } from '../../change/lsn.ts';

interface StandbyStatus {
  /** Sent as both write and flush: everything below is committed in Kafka. */
  readonly flush: Lsn;
  /** What synchronous_commit = remote_apply waits for. */
  readonly apply: Lsn;
  /** Milliseconds since 1970. */
  readonly nowMs: number;
  /** Whether the server is to answer at once. */
  readonly requestsReply: boolean;
}

const frameBytes = 34;
const postgresEpochMs = 946_684_800_000;

export function standbyStatus(status: StandbyStatus): Buffer {
  const frame = Buffer.alloc(frameBytes);
  frame.write('r', 0, 'latin1');
  frame.writeBigUInt64BE(status.flush, 1);
  // rule: status-of-exact-flush
  frame.writeBigUInt64BE(status.flush, 9);
  frame.writeBigUInt64BE(status.apply, 17);
  frame.writeBigInt64BE(BigInt(Math.trunc(status.nowMs - postgresEpochMs)) * 1000n, 25);
  frame.writeUInt8(status.requestsReply ? 1 : 0, 33);
  return frame;
}
