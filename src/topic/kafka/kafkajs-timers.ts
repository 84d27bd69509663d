/**
 * Stops the timers of idle Kafka connections. After every response kafkajs 2.2.4 arms a timer to
 * check its request queue, also when the queue is empty: about 1,000 wake-ups a second for each
 * connection, 2.4 % of a core, and on Node 24 a TimeoutNegativeWarning, since the delay it computes
 * is negative. One method of the queue's class is replaced by one that arms the timer only while
 * requests wait in the queue. A class of another shape is left as it is.
 */
import RequestQueue from 'kafkajs/src/network/requestQueue/index.js';

/** The fields the replaced method reads and writes. */
interface QueueFields {
  throttleCheckTimeoutId: NodeJS.Timeout | null;
  throttledUntil: number;
  readonly pending: readonly unknown[];
  checkPendingRequests(): void;
}

/** As in kafkajs: how soon a queue that is full of requests in flight is checked again. */
const pendingCheckMs = 10;

/**
 * Text of the replaced method; another text means another version, which has to be examined first.
 */
const expectedText = 'let scheduleAt = this.throttledUntil - Date.now()';

function scheduleCheckPendingRequests(this: QueueFields): void {
  if (this.pending.length === 0 || this.throttleCheckTimeoutId !== null) return;
  const throttledMs = this.throttledUntil - Date.now();
  this.throttleCheckTimeoutId = setTimeout(
    () => {
      this.throttleCheckTimeoutId = null;
      this.checkPendingRequests();
    },
    throttledMs > 0 ? throttledMs : pendingCheckMs,
  );
}

/** Can be called more than once. True when the timers are replaced. */
export function quietIdleTimers(): boolean {
  const prototype = RequestQueue.prototype as unknown as Record<string, unknown>;
  const present = prototype['scheduleCheckPendingRequests'];
  if (present === scheduleCheckPendingRequests) return true;
  if (typeof present !== 'function' || !present.toString().includes(expectedText)) return false;
  prototype['scheduleCheckPendingRequests'] = scheduleCheckPendingRequests;
  return true;
}
