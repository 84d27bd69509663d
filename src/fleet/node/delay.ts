/**
 * What is said of a delayed node: whether it may be delayed for so long, and whether it stands
 * where it is on purpose. Flows in: the delay, the time for which the topic keeps every change, the
 * end of the log; flows out: why not, or null, and judgements. What a delayed follower has read and
 * not applied is gone when its agent ends, and has to be in the topic whole when it starts again.
 */
import { formatDurationMs } from '../../change/amounts.ts';
import { UnderstudyError } from '../../errors/understudy-error.ts';
import { type LogEnds, streamingLagMs } from './lag.ts';

export function whyDelayTooLong(
  node: string,
  delayMs: number,
  topic: string,
  compactionLagMs: string | undefined,
): UnderstudyError | null {
  const lagMs = Number(compactionLagMs ?? Number.POSITIVE_INFINITY);
  if (delayMs === 0 || delayMs < lagMs) return null;
  return new UnderstudyError(
    'PREREQUISITE',
    `node ${node} is delayed by ${formatDurationMs(delayMs)}, and ${topic} keeps every change ` +
      `for ${formatDurationMs(lagMs)}`,
    `Shorten nodes.${node}.delay, or: kafka-configs.sh --alter --entity-type topics ` +
      `--entity-name ${topic} --add-config min.compaction.lag.ms=${delayMs * 2}`,
  );
}

/** As people are told of a node that stands behind on purpose. */
export function delayText(delayMs: number): string {
  return `delayed by ${formatDurationMs(delayMs)}: it applies nothing younger`;
}

/** Whether the newest of what it has not applied is too young: of the rest nobody here knows. */
export function isTooYoung({ newest, nowMs }: LogEnds, delayMs: number): boolean {
  const point = newest?.point ?? null;
  if (point === null) return true;
  const ageMs = nowMs - Number(point.commitTimeMicros / 1000n);
  return ageMs < delayMs + streamingLagMs;
}
