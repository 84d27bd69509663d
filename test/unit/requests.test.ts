/**
 * Which requests an agent still serves that were made before it was ready to: a failover whose
 * command waits, and no other.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type AgentRequest, failoverWaitMs, stillWaits } from '../../src/fleet/node/requests.ts';

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

test.run();
