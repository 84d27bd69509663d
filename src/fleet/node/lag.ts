/**
 * How far a follower is behind. Flows in: where it stands, and where the log and the leader's WAL
 * end; flows out: bytes and milliseconds, null where nobody can tell. Pure.
 */
import { compareEpochLsn, type EpochLsn } from '../../change/position.ts';
import type { DatabaseFacts, TopicFacts } from './fleet-facts.ts';

export interface LogEnds {
  readonly newest: TopicFacts | null;
  /** Where the leader's WAL stands, in its own epoch; null when nobody was asked. */
  readonly leaderWal: EpochLsn | null;
  readonly nowMs: number;
}

type Position = NonNullable<DatabaseFacts['position']>;

/** Async from end to end a change takes well under a second; twice that is no hiccup any more. */
export const streamingLagMs = 2_000;
/** What came within that time may be on its way, if it is no more than this. */
const streamingLagBytes = 16 * 1024 * 1024;

/** At the newest point, or so close behind it that the rest is on its way. */
export function isStreaming(ends: LogEnds, position: Position): boolean {
  const { newest, nowMs } = ends;
  if (isAtEnd(newest, position)) return true;
  const behindMs = lagMs(ends, position);
  if (behindMs !== null && behindMs < streamingLagMs) return true;
  // After a quiet time the commits before and after it lie far apart: then the point's age counts.
  const point = newest?.point ?? null;
  if (point === null) return false;
  const ageMs = nowMs - Number(point.commitTimeMicros / 1000n);
  const bytes = lagBytes(ends, position);
  return ageMs < streamingLagMs && bytes !== null && bytes <= streamingLagBytes;
}

export function isAtEnd(newest: TopicFacts | null, position: Position): boolean {
  return newest !== null && newest.at !== null && compareEpochLsn(position.at, newest.at) >= 0;
}

/** Behind the leader's WAL where that is known, else behind the log. */
export function lagBytes({ leaderWal, newest }: LogEnds, position: Position | null): number | null {
  if (position === null) return null;
  for (const end of [leaderWal, newest?.at ?? null]) {
    // LSNs of two epochs are those of two servers: there is no distance between them.
    if (end !== null && end.epoch === position.at.epoch) {
      return end.lsn > position.at.lsn ? Number(end.lsn - position.at.lsn) : 0;
    }
  }
  return null;
}

/** Between the last transaction of the log and the last that is applied, by their commit times. */
export function lagMs({ newest }: LogEnds, position: Position | null): number | null {
  if (position === null || newest === null) return null;
  if (isAtEnd(newest, position)) return 0;
  if (newest.point === null) return null;
  const behindMicros = newest.point.commitTimeMicros - position.commitTimeMicros;
  return behindMicros > 0n ? Number(behindMicros / 1000n) : 0;
}
