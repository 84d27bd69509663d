/**
 * How far a follower is behind, and whether that is as it should be. Flows in: where it stands, the
 * newest mark of the log and the leader's WAL; flows out: bytes, milliseconds, a judgement. Pure.
 */
import { compareEpochLsn, type EpochLsn } from '../change/position.ts';
import type { DatabaseFacts, FleetFacts, TopicFacts } from './fleet-facts.ts';

/** Async from end to end a change takes well under a second; twice that is no hiccup any more. */
const streamingLagMs = 2_000;
/** What came within that time may be on its way, if it is no more than this. */
const streamingLagBytes = 16 * 1024 * 1024;

type Position = NonNullable<DatabaseFacts['position']>;

/** What a follower is measured by. */
interface Ahead {
  readonly newest: TopicFacts | null;
  /** Where the leader's WAL stands, in its own epoch; null when nobody was asked. */
  readonly leaderWal: EpochLsn | null;
  readonly facts: Pick<FleetFacts, 'nowMs'>;
}

/** At the newest point, or so close behind it that the rest is on its way. */
export function isStreaming(fleet: Ahead, position: Position): boolean {
  const { newest, facts } = fleet;
  if (isAtEnd(newest, position)) return true;
  const behindMs = lagMs(fleet, position);
  if (behindMs !== null && behindMs < streamingLagMs) return true;
  // After a quiet time the commits before and after it lie far apart: then the point's age counts.
  const point = newest?.point ?? null;
  if (point === null) return false;
  const ageMs = facts.nowMs - Number(point.commitTimeMicros / 1000n);
  const bytes = lagBytes(fleet, position);
  return ageMs < streamingLagMs && bytes !== null && bytes <= streamingLagBytes;
}

export function isAtEnd(newest: TopicFacts | null, position: Position): boolean {
  return newest !== null && newest.at !== null && compareEpochLsn(position.at, newest.at) >= 0;
}

/** Behind the leader's WAL where that is known, else behind the log. */
export function lagBytes({ leaderWal, newest }: Ahead, position: Position | null): number | null {
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
export function lagMs({ newest }: Ahead, position: Position | null): number | null {
  if (position === null || newest === null) return null;
  if (isAtEnd(newest, position)) return 0;
  if (newest.point === null) return null;
  const behindMicros = newest.point.commitTimeMicros - position.commitTimeMicros;
  return behindMicros > 0n ? Number(behindMicros / 1000n) : 0;
}

/** Whether the newest of what it has not applied is too young: of the rest nobody here knows. */
export function isTooYoung({ newest, facts }: Ahead, delayMs: number): boolean {
  const point = newest?.point ?? null;
  if (point === null) return true;
  const ageMs = facts.nowMs - Number(point.commitTimeMicros / 1000n);
  return ageMs < delayMs + streamingLagMs;
}
