/**
 * The requests of commands without a fleet: which ones an agent serves that were made before it was
 * ready, how it serves them in each of its states, and what the requester of a promotion gets. The
 * control log is in memory.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { RowKey } from '../../src/change/change.ts';
import { notBuilt } from '../../src/errors/ownership.ts';
import { RequestDesk } from '../../src/fleet/node/request-desk.ts';
import { type AgentRequest, failoverWaitMs, stillWaits } from '../../src/fleet/node/requests.ts';
import { PromotionRequest } from '../../src/fleet/promotion/promotion-request.ts';
import type { ApplyLimit } from '../../src/follower/apply/apply-portion.ts';
import type { Follower } from '../../src/follower/follower.ts';
import { at } from '../support/builders.ts';
import { claimOf, MemoryControlLog } from '../support/memory-control-log.ts';

const madeMs = Date.parse('2025-11-21T09:00:00.000Z');

function request(changes: Partial<AgentRequest> = {}): AgentRequest {
  return {
    kind: 'request',
    id: 'request-1',
    step: 'start',
    verb: 'failover',
    node: 'b',
    args: { epoch: 2 },
    time: new Date(madeMs).toISOString(),
    ...changes,
  };
}

test('a failover waits until it is answered or its command has given up', () => {
  assert.is(stillWaits(request(), false, madeMs), true);
  assert.is(stillWaits(request(), false, madeMs + failoverWaitMs - 1), true);
  assert.is(stillWaits(request(), false, madeMs + failoverWaitMs), false);
  assert.is(stillWaits(request(), true, madeMs), false);
});

test('a clock that is a little behind does not hide a request, one far behind does', () => {
  assert.is(stillWaits(request(), false, madeMs - 5_000), true);
  assert.is(stillWaits(request(), false, madeMs - failoverWaitMs), false);
});

test('a comparison that nobody heard is asked for again by its command', () => {
  assert.is(stillWaits(request({ verb: 'hold', step: 'hold' }), false, madeMs), false);
});

test('a time that cannot be read is no reason to take the lead', () => {
  assert.is(stillWaits(request({ time: 'yesterday' }), false, madeMs), false);
});

/** A follower that pauses wherever it is told to. */
class PausingFollower {
  readonly limits: string[] = [];

  setLimit({ kind }: ApplyLimit): void {
    this.limits.push(kind);
  }

  pauseAt = (async (limit: ApplyLimit) => {
    this.setLimit(limit);
    return { at: limit.kind === 'to' ? limit.at : at(1, 7) };
  }) as unknown as Follower['pauseAt'];
}

const never = new Promise<void>(() => undefined);

function deskOf(control: MemoryControlLog): RequestDesk {
  return new RequestDesk(control, 'b', () => madeMs);
}

/** The answers so far, in order: result, or the code of the error. */
function answersIn({ appended }: MemoryControlLog): unknown[] {
  return appended.flatMap((record) => {
    if (record.kind !== 'answer') return [];
    return [record.error === null ? record.result : record.error.code];
  });
}

async function turns(): Promise<void> {
  for (let count = 0; count < 5; count += 1) {
    await new Promise((resolve) => setImmediate(resolve));
  }
}

test('a desk serves a failover that waits, and not one that was answered', async () => {
  const waiting = deskOf(new MemoryControlLog(request()));
  const follower = new PausingFollower();
  assert.is((await waiting.serve(follower, never))?.id, 'request-1');
  const answered = new MemoryControlLog(request());
  await deskOf(answered).answer(request(), { node: 'b' }, null);
  assert.is(await deskOf(answered).serve(follower, Promise.resolve()), null);
});

test('a request for another node, or one that was seen, is not served', async () => {
  const control = new MemoryControlLog();
  const desk = deskOf(control);
  await control.append(request({ node: 'c' }));
  await control.append(request({ id: 'request-2', verb: 'hold', step: 'hold', args: {} }));
  await control.append(request({ id: 'request-2', verb: 'hold', step: 'hold', args: {} }));
  await desk.serve(new PausingFollower(), turns());
  assert.equal(answersIn(control), [{ at: '1:0/7' }]);
});

test('a comparison holds the follower, moves it to an LSN and releases it', async () => {
  const control = new MemoryControlLog();
  const desk = deskOf(control);
  const follower = new PausingFollower();
  const served = desk.serve(follower, never);
  const hold = { id: 'verify-1', verb: 'hold' };
  await control.append(request({ ...hold, step: 'hold', args: {} }));
  await turns();
  await control.append(request({ ...hold, step: 'go', args: { to: '1:0/A' } }));
  await control.append(request({ ...hold, id: 'verify-2', step: 'go', args: {} }));
  await turns();
  await control.append(request({ ...hold, step: 'release', args: {} }));
  await turns();
  assert.equal(answersIn(control), [{ at: '1:0/7' }, 'USAGE', { at: '1:0/A' }]);
  assert.equal(follower.limits, ['hold', 'to', 'none']);
  await control.append(request());
  assert.is((await served)?.verb, 'failover');
});

test('a follower that is to stop at an LSN refuses all but a detach', async () => {
  const control = new MemoryControlLog();
  const desk = deskOf(control);
  const limit: ApplyLimit = { kind: 'to', at: at(1, 9) };
  const served = desk.serve(new PausingFollower(), never, limit);
  await control.append(request());
  await turns();
  assert.equal(answersIn(control), ['PREREQUISITE']);
  await control.append(request({ id: 'request-2', verb: 'detach' }));
  assert.is((await served)?.verb, 'detach');
});

test('a node that is being rebuilt answers every request by its own words', async () => {
  const control = new MemoryControlLog();
  const desk = deskOf(control);
  const ending = new AbortController();
  const reply = async ({ verb }: AgentRequest) => {
    if (verb === 'failover') throw notBuilt('b');
    return { verb };
  };
  const serving = desk.serveBusy(reply, ending.signal);
  await control.append(request());
  await control.append(request({ id: 'request-2', verb: 'rebuild' }));
  await control.append(request({ id: 'request-3', verb: 'hold', step: 'release' }));
  await turns();
  ending.abort();
  await serving;
  assert.equal(answersIn(control), ['NOT_PROMOTABLE', { verb: 'rebuild' }]);
});

test('a leader publishes the rows that a repair names; a failure of its own ends it', async () => {
  const control = new MemoryControlLog();
  const desk = deskOf(control);
  const ending = new AbortController();
  const published: string[] = [];
  const publishRows = async (keys: readonly RowKey[]): Promise<void> => {
    published.push(...keys.map(({ identity }) => identity.join()));
    if (published.includes('broken')) throw new Error('the stream has ended');
  };
  const serving = desk.serveRepairs({ publishRows }, ending.signal);
  const repair = { verb: 'repair' };
  await control.append(
    request({ ...repair, args: { relation: 'public.t', keys: [['1'], ['2']] } }),
  );
  await turns();
  await control.append(request({ ...repair, id: 'request-2', args: { relation: 'public.t' } }));
  await turns();
  assert.equal(answersIn(control), [{ published: 2 }, 'USAGE']);
  const last = { relation: 'public.t', keys: [['broken']] };
  await control.append(request({ ...repair, id: 'request-3', args: last }));
  const failure = await serving.then(
    () => null,
    (error: unknown) => error,
  );
  assert.is((failure as Error | null)?.message, 'the stream has ended');
  assert.equal(published, ['1', '2', 'broken']);
});

test('every command that asked for an epoch of this node hears that it leads', async () => {
  const control = new MemoryControlLog(claimOf(1, 'a'), claimOf(2, 'b'));
  const desk = deskOf(control);
  await control.append(request());
  await control.append(request({ id: 'request-2', args: { epoch: 3 } }));
  await control.append(request({ id: 'request-3', verb: 'detach' }));
  await desk.answerFailovers({ node: 'b', epoch: 2 });
  await desk.answerFailovers({ node: 'b', epoch: 2 });
  assert.equal(answersIn(control), [{ node: 'b', epoch: 2 }]);
});

const promoted = {
  epoch: 2,
  checkpoint: { at: at(2, 9), nextOffsets: [4n] },
  base: at(1, 7),
  sequences: [],
  lacks: [],
};

test('a promotion answers with the time of each step once the node leads', async () => {
  let nowMs = 0;
  const options = { node: 'b', mayClaim: 2, nowMs: () => nowMs, asked: null };
  const promotion = new PromotionRequest(options);
  promotion.step('slot');
  nowMs += 30;
  promotion.step('claim');
  nowMs += 5;
  const result = promotion.succeeded(promoted);
  assert.equal(result.steps, [
    { step: 'slot', ms: 30 },
    { step: 'claim', ms: 5 },
  ]);
  assert.is(result.lsn, '2:0/9');
  assert.is(result.base, '1:0/7');
  assert.equal(await promotion.leads, result);
});

test('a failure is the requester’s until the node leads, then the agent’s own', async () => {
  const control = new MemoryControlLog();
  const asked = { request: request(), desk: deskOf(control) };
  const promotion = new PromotionRequest({ node: 'b', mayClaim: 2, nowMs: () => 0, asked });
  assert.is(promotion.isAwaited, true);
  await promotion.failed(notBuilt('b'));
  assert.equal(answersIn(control), ['NOT_PROMOTABLE']);
  promotion.succeeded(promoted);
  assert.is(promotion.isAwaited, false);
  const alone = new PromotionRequest({ node: 'b', mayClaim: null, nowMs: () => 0, asked: null });
  assert.is(alone.isAwaited, false, 'a crash interrupted it: no command waits here');
});

test.run();
