/**
 * The watch over the topics of a cluster, one for each process that serves nodes. It polls their
 * settings and logs what makes them lose rows, since `check` runs only when it is called. It
 * decides nothing; brokers that cannot be reached are reported by the agents.
 */
import type { Cluster } from '../fleet/cluster.ts';
import { readTopicProblems } from '../fleet/status/topic-problems.ts';
import { probeKafka } from '../topic/kafka/client.ts';
import { interruptible, isAbortOf, sleepOrAbort } from '../waiting.ts';

/** A broker deletes a segment no sooner than minutes after such a change. */
const pollEveryMs = 20_000;
/** Brokers that are up take milliseconds. */
const probeMaxMs = 1_500;
/** How often a problem that lasts is logged again. */
const repeatMs = 300_000;

export class TopicWatch {
  readonly #cluster: Cluster;
  #logged = '';
  #loggedMs = 0;

  constructor(cluster: Cluster) {
    this.#cluster = cluster;
  }

  /** Until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { sleep, log } = this.#cluster.around;
    while (!signal.aborted) {
      await sleepOrAbort(pollEveryMs, signal, sleep);
      if (signal.aborted) return;
      try {
        // Without brokers the requests behind it would go on for longer than an agent takes to end.
        await probeKafka(this.#cluster.kafka, probeMaxMs);
        this.#report(await interruptible(readTopicProblems(this.#cluster), signal));
      } catch (error) {
        if (isAbortOf(error, signal)) return;
        log.debug({ error }, 'the settings of the topics are read later');
      }
    }
  }

  #report(problems: readonly string[]): void {
    const { log, nowMs } = this.#cluster.around;
    const text = problems.join('; ');
    const isChanged = text !== this.#logged;
    const isDue = problems.length > 0 && nowMs() - this.#loggedMs >= repeatMs;
    if (!isChanged && !isDue) return;
    this.#logged = text;
    this.#loggedMs = nowMs();
    const hint =
      'Put the settings back, as `understudy check` says: what expired meanwhile is lost.';
    if (problems.length === 0) log.info({}, 'the topics are as they have to be again');
    else log.error({ problems, hint }, 'the topics lose rows');
  }
}
