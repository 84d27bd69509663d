/**
 * Keeps the smallest min.compaction.lag.ms that the topic ever had in the control log: it decides
 * whether records that are missing were compacted or lost, and up to when the log holds every
 * state. Flows in: the setting as the brokers have it now; flows out: a record where it is smaller
 * than any before. It is read at each start of an agent, every minute while a node leads, and
 * before each judgement of age, so that a setting that was lowered is known before anything is
 * judged by the one before.
 */
import type { ControlLog } from '../../control/control-log.ts';
import { hasCode } from '../../errors/understudy-error.ts';
import { describeTopic } from '../../topic/kafka/admin.ts';
import { sleepOrAbort, unlessAborted } from '../../waiting.ts';
import type { Cluster } from '../cluster.ts';

type LagLog = Pick<ControlLog, 'state' | 'append' | 'verify'>;

/** The cleaner of a broker begins within seconds of a new setting, with what is old enough. */
const pollMs = 60_000;

/** A setting that is not known says nothing, and is not smaller. */
export async function noteCompactionLag(
  control: LagLog,
  setting: string | undefined,
): Promise<void> {
  const lagMs = Number(setting ?? Number.NaN);
  const known = control.state.smallestCompactionLagMs;
  // rule: smallest-lag-recorded
  if (!Number.isSafeInteger(lagMs) || lagMs < 0 || (known !== null && lagMs >= known)) return;
  await control.append({ kind: 'compaction-lag', ms: lagMs });
  await control.verify();
}

/** As it is now; null where it was never known. */
export async function smallestCompactionLagMs(
  { kafka, topic }: Pick<Cluster, 'kafka' | 'topic'>,
  control: LagLog,
): Promise<number | null> {
  const described = await describeTopic(kafka, topic);
  await noteCompactionLag(control, described?.settings['min.compaction.lag.ms']);
  return control.state.smallestCompactionLagMs;
}

/** Until `signal` aborts. Unreachable brokers stop no leader: the next round reads it. */
export async function keepNotingLag(
  cluster: Cluster,
  control: LagLog,
  signal: AbortSignal,
): Promise<void> {
  for (;;) {
    await sleepOrAbort(pollMs, signal);
    if (signal.aborted) return;
    try {
      await unlessAborted(smallestCompactionLagMs(cluster, control), signal);
    } catch (error) {
      if (!hasCode(error, 'KAFKA_UNREACHABLE', 'TIMED_OUT')) throw error;
      cluster.around.log.debug({ error }, 'the compaction lag of the topic is read later');
    }
  }
}
