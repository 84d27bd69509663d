/**
 * What breaks: single requests and answers between the leader's agent and Kafka. An answer is lost
 * after the broker did what was asked; a request is lost before; the commit of a transaction is
 * held on the way while its sender gives up, leads again and publishes on, and arrives in the
 * middle of a later transaction. The rule: a request without an answer is never repeated. The
 * producer is thrown away, the next one fences it, and the log alone shows what was committed. What
 * a late commit does without that rule is shown in integration/topic-lost-answers.
 */
// runs: ci, since test/integration/topic-lost-answers.test.ts has its kind
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { FleetUnderLoad, fewWorkloads } from '../support/fleet-under-load.ts';
import { isFull } from '../support/form.ts';
import { apiKeys, errorCodeOf, fencedCodes, KafkaProxy } from '../support/kafka-proxy.ts';
import { seeded, seedOfRun } from '../support/seed.ts';
import { type Stack, useStack } from '../support/stack.ts';

let stack: Stack;
let way: KafkaProxy;
let under: FleetUnderLoad;
const random = seeded(seedOfRun());
const rounds = isFull ? 10 : 1;

test.before(async () => {
  stack = await useStack({ postgres: 2 });
  way = await KafkaProxy.start(stack.brokers);
  const links = { a: { brokers: way.addresses } };
  under = await FleetUnderLoad.start({ stack, partitions: 3, links, workloads: fewWorkloads });
});

test.after(async () => {
  way.forget();
  await under.close();
  await way.close();
  await stack.close();
});

/** Each round has a new agent: one that has failed often waits long before it retries. */
async function inRounds(work: () => Promise<void>): Promise<void> {
  for (let round = 0; round < rounds; round += 1) {
    await under.restartLeader();
    await work();
  }
  await under.isExact();
}

test('a lost answer and a lost request leave nothing out and repeat nothing', async () => {
  const { produce, endTransaction, addPartitions } = apiKeys;
  const answers = [produce, endTransaction, addPartitions].map((api) => () => way.loseAnswer(api));
  const requests = [produce, endTransaction, addPartitions].map(
    (api) => () => way.loseRequest(api),
  );
  const few = [answers[0], answers[1], requests[Math.floor(random() * 3)]];
  await inRounds(async () => {
    for (const lose of isFull ? [...answers, ...requests] : few) {
      await lose?.().caught;
      await under.arrivals(1 + Math.floor(random() * 20));
    }
  });
});

test('a leader that loses answers while it starts leads all the same', async () => {
  const { findCoordinator, initProducerId, listOffsets, produce } = apiKeys;
  await inRounds(async () => {
    for (const api of [findCoordinator, initProducerId, listOffsets]) {
      const lost = way.loseAnswer(api);
      if (api === findCoordinator) await way.loseAnswer(produce).caught;
      await lost.caught;
    }
    await under.arrivals(1);
  });
});

test('a commit that arrives long after it was given up is refused', async () => {
  await inRounds(async () => {
    const late = way.holdRequest(apiKeys.endTransaction);
    await late.caught;
    const next = way.holdRequest(apiKeys.endTransaction);
    late.giveUp();
    // The rows of the next transaction are in the log, and it is open: the worst moment.
    await next.caught;
    assert.ok(fencedCodes.has(errorCodeOf(await late.release())), 'its producer is fenced');
    assert.is(errorCodeOf(await next.release()), 0);
    await under.arrivals(5);
  });
});

test('a commit that arrives before its sender is back is not sent twice', async () => {
  await inRounds(async () => {
    const late = way.holdRequest(apiKeys.endTransaction);
    await late.caught;
    const init = way.holdRequest(apiKeys.initProducerId);
    late.giveUp();
    await init.caught;
    assert.is(errorCodeOf(await late.release()), 0, 'no producer has fenced it yet');
    await init.release();
    await under.arrivals(5);
  });
});

test('a commit held while the whole agent dies is refused too', async () => {
  await inRounds(async () => {
    const late = way.holdRequest(apiKeys.endTransaction);
    await late.caught;
    await under.restartLeader();
    assert.ok(fencedCodes.has(errorCodeOf(await late.release())));
  });
});

test.run();
