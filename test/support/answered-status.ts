/**
 * The status of a fleet whose servers are up. Flows in: a fleet; flows out: an answer of `status`
 * in which every server had time to answer: on a busy machine one takes longer now and then than
 * whoever asks for a status waits, and then that is all that the status says.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import * as assert from 'uvu/assert';
import type { Answer, Fleet } from './fleet.ts';

/** The look gives up, or its connection does, or its statement: whose time is over first. */
const lateDatabase =
  /the database of node \w+ did not answer within|timeout expired|statement timeout/;
const lateKafka =
  /the (control log|topic) did not answer within|Kafka at .* does not answer within/;
const answeredWithinMs = 60_000;
const pauseMs = 200;

/** Where the brokers are away, only the databases are asked again. */
export async function answeredStatus(fleet: Fleet, isKafkaUp = true): Promise<Answer> {
  for (const deadlineMs = Date.now() + answeredWithinMs; ; await sleep(pauseMs)) {
    const answer = await fleet.cli('status');
    const isLate = lateDatabase.test(answer.stdout) || (isKafkaUp && lateKafka.test(answer.stdout));
    if (!isLate) return answer;
    assert.ok(Date.now() < deadlineMs, `${answer.stdout}\n${fleet.logs()}`);
  }
}
