/**
 * How far a follower is behind, and whether it can catch up. It takes a follower's position and the
 * ends of the log and of the leader's WAL; it gives bytes and milliseconds, null where they are not
 * known, whether the follower streams or is delayed on purpose, and which records it needs that the
 * topic no longer holds. Pure.
 */
import { formatDurationMs } from '../../change/amounts.ts';
import { compareEpochLsn, type EpochLsn, formatEpochLsn } from '../../change/position.ts';
import type { DatabaseFacts, TopicFacts } from './fleet-facts.ts';

export interface LogEnds {
  readonly newest: TopicFacts | null;
  /** The end of the leader's WAL, in its own epoch; null when the leader was not asked. */
  readonly leaderWal: EpochLsn | null;
  readonly nowMs: number;
}

type Position = NonNullable<DatabaseFacts['position']>;

/** From end to end a change takes well under a second; twice that is more than a hiccup. */
const streamingLagMs = 2_000;
/** What was written within that time may be on its way, if it is no more than this. */
const streamingLagBytes = 16 * 1024 * 1024;

/** At the newest point, or so close behind it that the rest is on its way. */
export function isStreaming(ends: LogEnds, position: Position): boolean {
  const { newest, nowMs } = ends;
  if (isAtEnd(newest, position)) return true;
  const behindMs = lagMs(ends, position);
  if (behindMs !== null && behindMs < streamingLagMs) return true;
  // After a quiet time the commits before and after it are far apart: then the point's age counts.
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

/** For people, of a node that is behind on purpose. */
export function delayText(delayMs: number): string {
  return `delayed by ${formatDurationMs(delayMs)}: it applies nothing younger`;
}

/**
 * Whether the newest change is too young for a delayed node; the ages of the others are unknown.
 */
export function isTooYoung({ newest, nowMs }: LogEnds, delayMs: number): boolean {
  const point = newest?.point ?? null;
  if (point === null) return true;
  const ageMs = nowMs - Number(point.commitTimeMicros / 1000n);
  return ageMs < delayMs + streamingLagMs;
}

/**
 * One reason for each partition that does not hold what the follower reads next: such a node can
 * neither follow nor be promoted. Where an agent runs, the position may be newer than the end that
 * was read of the topic.
 */
export function missingRecords(
  topic: TopicFacts | null,
  { agentRuns, position }: Pick<DatabaseFacts, 'agentRuns' | 'position'>,
): string[] {
  return (topic?.watermarks ?? []).flatMap(({ partition, lowWatermark, lastStableOffset }) => {
    const next = position?.checkpoint?.nextOffsets[partition];
    if (next === undefined) return [];
    if (next >= lowWatermark && (agentRuns || next <= lastStableOffset)) return [];
    const holds = `${lowWatermark} to ${lastStableOffset}`;
    return [`it needs the offset ${next} of partition ${partition}, which holds ${holds}`];
  });
}

/** The newest position of the topic, for people. */
export function newestText({ newest }: LogEnds): string {
  return newest === null || newest.at === null ? 'the end' : formatEpochLsn(newest.at);
}
