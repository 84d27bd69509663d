/**
 * Back-off, runs that begin again, stopping by signal, closing in order: with clock, sleep and
 * randomness of the test's own, and once with a real process.
 */
import { EventEmitter } from 'node:events';
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import {
  isRetriable,
  levelOfDelay,
  onSignals,
  Releasers,
  runUntilStopped,
  Stopped,
} from '../../src/lifecycle.ts';
import type { Logger } from '../../src/logger.ts';
import {
  backoffCeilingMs,
  backoffDelayMs,
  boundedDelayMs,
  sleep,
  unlessAborted,
  withTimeout,
} from '../../src/waiting.ts';

const backoff = { baseMs: 100, capMs: 30_000, steadyMs: 60_000 };
const transient = () => new UnderstudyError('KAFKA_UNREACHABLE', 'no broker', 'start one');

interface Bench {
  readonly lines: string[];
  readonly sleeps: number[];
  readonly controller: AbortController;
  nowMs: number;
  run(
    attempt: (signal: AbortSignal, working: () => void) => Promise<void>,
    probes?: (error: unknown) => boolean,
  ): Promise<void>;
}

function bench(): Bench {
  const lines: string[] = [];
  const line = (level: string) => (_fields: object, message: string) => {
    lines.push(`${level} ${message}`);
  };
  const log: Logger = {
    debug: line('debug'),
    info: line('info'),
    warn: line('warn'),
    error: line('error'),
    child: () => log,
  };
  const controller = new AbortController();
  const self: Bench = {
    lines,
    sleeps: [],
    controller,
    nowMs: 0,
    run: (attempt, probes = () => false) =>
      runUntilStopped(attempt, {
        name: 'loop',
        signal: controller.signal,
        log,
        backoff,
        random: () => 0.999999,
        now: () => self.nowMs,
        probes,
        sleep: async (ms) => {
          self.sleeps.push(ms);
        },
      }),
  };
  return self;
}

async function rejection(promise: Promise<unknown>): Promise<unknown> {
  let resolved = false;
  try {
    await promise;
    resolved = true;
  } catch (error) {
    return error;
  }
  throw new Error(`was not rejected: ${resolved}`);
}

test('the delay is within the ceiling, which doubles up to the cap', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 5000 }),
      fc.double({ min: 0, max: 0.9999, noNaN: true }),
      (n, r) => {
        const delay = backoffDelayMs(n, backoff, () => r);
        assert.ok(delay >= 0 && delay <= backoffCeilingMs(n, backoff));
        const bounded = boundedDelayMs(n, backoff, () => r);
        assert.ok(bounded * 2 + 2 > backoffCeilingMs(n, backoff));
        assert.ok(bounded <= backoffCeilingMs(n, backoff));
        assert.ok(backoffCeilingMs(n, backoff) <= backoff.capMs);
        assert.ok(backoffCeilingMs(n + 1, backoff) >= backoffCeilingMs(n, backoff));
      },
    ),
  );
  assert.equal(
    [1, 2, 3, 9, 10].map((n) => backoffCeilingMs(n, backoff)),
    [100, 200, 400, 25_600, 30_000],
  );
  assert.is(
    backoffDelayMs(3, backoff, () => 0.5),
    200,
  );
});

test('the level of a retry rises with the ceiling', () => {
  assert.equal([999, 1000, 9999, 10_000].map(levelOfDelay), ['info', 'warn', 'warn', 'error']);
});

test('a failure that may pass is retried, louder and louder, until it is through', async () => {
  const at = bench();
  let runs = 0;
  await at.run(async () => {
    runs += 1;
    if (runs <= 9) throw transient();
  });
  assert.is(runs, 10);
  assert.equal(at.sleeps.slice(0, 4), [99, 199, 399, 799]);
  const levels = at.lines.map((line) => line.split(' ')[0]);
  assert.equal(levels, [
    ...['info', 'info', 'info', 'info'],
    ...['warn', 'warn', 'warn'],
    ...['error', 'error'],
  ]);
});

test('a probe is repeated every second, and logged as rarely as others', async () => {
  const at = bench();
  let runs = 0;
  await at.run(
    async () => {
      runs += 1;
      if (runs <= 20) throw transient();
    },
    () => true,
  );
  assert.equal(at.sleeps.slice(0, 6), [99, 199, 399, 799, 1000, 599]);
  assert.ok(Math.max(...at.sleeps) <= 1000);
  // Nine failures without probes have the same nine lines: the pauses are the same.
  assert.equal(at.lines.length, 8, String(at.sleeps));
});

test('a failure of work is logged at once, whatever the pause before it', async () => {
  const at = bench();
  let runs = 0;
  await at.run(
    async (_, working) => {
      runs += 1;
      if (runs === 6) working();
      if (runs <= 6) throw transient();
    },
    () => true,
  );
  assert.equal(at.lines.length, 6);
});

test('a failure after work that lasted counts as the first', async () => {
  const at = bench();
  let runs = 0;
  await at.run(async (_, working) => {
    runs += 1;
    working();
    if (runs === 3) at.nowMs += backoff.steadyMs;
    if (runs < 5) throw transient();
  });
  assert.equal(at.sleeps, [99, 199, 99, 199]);
});

test('an attempt that hangs for long and never works makes the next one wait longer', async () => {
  const at = bench();
  let runs = 0;
  await at.run(async () => {
    runs += 1;
    at.nowMs += 2 * backoff.steadyMs;
    if (runs < 10) throw transient();
  });
  assert.equal(at.sleeps.slice(0, 4), [99, 199, 399, 799]);
  assert.match(at.lines.at(-1) ?? '', /^error/);
});

test('a failure that cannot pass is rethrown at once', async () => {
  const at = bench();
  const error = new UnderstudyError('DAMAGED', 'a hole', 'repair');
  assert.is(await rejection(at.run(() => Promise.reject(error))), error);
  const unknown = new TypeError('undefined is not a function');
  assert.is(await rejection(at.run(() => Promise.reject(unknown))), unknown);
  assert.equal(at.sleeps, []);
});

test('an abort ends the run and the wait, and hides only its own noise', async () => {
  const at = bench();
  await at.run(async (signal) => {
    at.controller.abort(new Stopped('SIGTERM'));
    throw signal.reason;
  });
  const noisy = bench();
  await noisy.run(async () => {
    noisy.controller.abort(new Stopped('SIGTERM'));
    throw transient();
  });
  assert.equal(noisy.sleeps, []);
  const broken = bench();
  const error = new UnderstudyError('DAMAGED', 'a hole', 'repair');
  const run = broken.run(async () => {
    broken.controller.abort(new Stopped('SIGTERM'));
    throw error;
  });
  assert.is(await rejection(run), error);
});

test('work that never ends is left at an abort, and no other', async () => {
  const controller = new AbortController();
  const never = unlessAborted(new Promise(() => undefined), controller.signal);
  controller.abort();
  await withTimeout(never, 2000, () => new Error('still waiting'));
  await unlessAborted(Promise.reject(new Error('too late to be heard')), controller.signal);
  const { signal } = new AbortController();
  await unlessAborted(Promise.resolve(), signal);
  const error = new Error('heard');
  assert.is(await rejection(unlessAborted(Promise.reject(error), signal)), error);
});

test('an aborted wait between two runs ends the run', async () => {
  const controller = new AbortController();
  let runs = 0;
  const { log } = { log: quietLogger() };
  const run = runUntilStopped(
    async () => {
      runs += 1;
      throw transient();
    },
    {
      name: 'loop',
      signal: controller.signal,
      log,
      backoff: { baseMs: 60_000, capMs: 60_000, steadyMs: 1 },
      random: () => 0.999,
      now: () => 0,
      sleep,
    },
  );
  setTimeout(() => controller.abort(new Stopped('SIGINT')), 10);
  await withTimeout(run, 2000, () => new Error('still waiting'));
  assert.is(runs, 1);
});

function quietLogger(): Logger {
  const nothing = (): void => undefined;
  const log: Logger = {
    debug: nothing,
    info: nothing,
    warn: nothing,
    error: nothing,
    child: () => log,
  };
  return log;
}

test('failures that may pass by themselves are retriable, others are not', () => {
  const coded = (code: string, more: object = {}) =>
    Object.assign(new Error('x'), { code, ...more });
  const several = (...errors: Error[]) => new AggregateError(errors, 'several');
  assert.ok(isRetriable(transient()));
  assert.ok(isRetriable(coded('ECONNREFUSED')));
  assert.ok(isRetriable(coded('57P03')));
  assert.ok(isRetriable(coded('25P04')), 'transaction_timeout');
  assert.not(isRetriable(coded('25006')), 'a read-only transaction');
  assert.ok(isRetriable(coded('ENOENT', { syscall: 'connect' })));
  assert.ok(isRetriable(new Error('Connection terminated unexpectedly')));
  assert.ok(isRetriable(several(coded('ECONNREFUSED'), coded('ETIMEDOUT'))));
  assert.not(isRetriable(several(coded('ECONNREFUSED'), coded('23505'))));
  assert.not(isRetriable(coded('ENOENT', { syscall: 'open' })));
  assert.not(isRetriable(coded('23505')));
  assert.not(isRetriable(new UnderstudyError('BUG', 'x', 'y')));
  assert.not(isRetriable('Connection terminated'));
});

test('sleep ends in time, and at once when aborted', async () => {
  await sleep(1);
  const controller = new AbortController();
  const reason = new Stopped('SIGINT');
  const sleeping = rejection(sleep(60_000, controller.signal));
  controller.abort(reason);
  assert.is(await sleeping, reason);
  assert.is(await rejection(sleep(60_000, controller.signal)), reason);
});

test('withTimeout gives the value, the failure, or its own error', async () => {
  const late = () => new UnderstudyError('TIMED_OUT', 'late', 'wait longer');
  assert.is(await withTimeout(Promise.resolve(5), 1000, late), 5);
  const error = new Error('mine');
  assert.is(await rejection(withTimeout(Promise.reject(error), 1000, late)), error);
  const never = new Promise(() => undefined);
  const timedOut = await rejection(withTimeout(never, 5, late));
  assert.instance(timedOut, UnderstudyError);
  const failsLater = sleep(10).then(() => Promise.reject(error));
  assert.instance(await rejection(withTimeout(failsLater, 1, late)), UnderstudyError);
  await sleep(20);
});

test('the first signal aborts, the second forces the exit', () => {
  const source = new EventEmitter();
  const controller = new AbortController();
  const exits: number[] = [];
  const notices: string[] = [];
  const stopListening = onSignals({
    source,
    controller,
    exit: (code) => exits.push(code),
    notice: (line) => notices.push(line),
  });
  source.emit('SIGTERM');
  assert.ok(controller.signal.aborted);
  assert.instance(controller.signal.reason, Stopped);
  assert.is(controller.signal.reason.exit, 143);
  assert.equal(exits, []);
  source.emit('SIGINT');
  assert.equal(exits, [130]);
  assert.is(notices.length, 1);
  stopListening();
  assert.is(source.listenerCount('SIGTERM') + source.listenerCount('SIGINT'), 0);
});

test('what was opened last is closed first, and a failure stops nothing', async () => {
  const releasers = new Releasers(20);
  const closed: string[] = [];
  releasers.push('first', () => {
    closed.push('first');
  });
  releasers.push('stuck', () => new Promise(() => undefined));
  releasers.push('broken', () => {
    throw new Error('no');
  });
  const takeBack = releasers.push('removed', () => {
    closed.push('removed');
  });
  releasers.push('last', async () => {
    await sleep(1);
    closed.push('last');
  });
  takeBack();
  const failures = await releasers.close();
  assert.equal(closed, ['last', 'first']);
  assert.equal(
    failures.map((failure) => failure.message),
    ['closing broken failed', 'closing stuck failed'],
  );
  assert.equal(await releasers.close(), []);
  assert.throws(() => releasers.push('late', () => undefined), /opened after the end/);
});

test.run();
