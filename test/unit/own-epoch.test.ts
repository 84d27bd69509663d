/**
 * How an epoch is owned and lost, without a fleet: what the end of the log says about an epoch, as
 * a table; and the executor of the owning state machine, between a control log and producers in
 * memory.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { ControlRecord } from '../../src/control/control-records.ts';
import type { ControlState } from '../../src/control/control-state.ts';
import { otherPublisher } from '../../src/errors/ownership.ts';
import { controlLogClosed } from '../../src/errors/timed-out.ts';
import { EpochOwner, foundAtEnd } from '../../src/fleet/promotion/own-epoch.ts';
import type { TransactionalProducer } from '../../src/topic/log.ts';
import { findLogEnd, type LogEnd } from '../../src/topic/partition-tails.ts';
import { at, SketchedTopic } from '../support/builders.ts';
import { claimOf, MemoryControlLog, recordTime } from '../support/memory-control-log.ts';

/** The log after what `write` put behind the whole begin of epoch 1. */
function found(epoch: number, write: (topic: SketchedTopic) => unknown): string | undefined {
  const topic = new SketchedTopic(2);
  topic.begin(1, 0, { base: null });
  write(topic);
  const end = findLogEnd(
    topic.partitions.map((records, partition) => ({ partition, records, reachesStart: true })),
  );
  return end === null ? undefined : foundAtEnd(end, epoch);
}

const torn = (topic: SketchedTopic) => topic.row(0, 10, 'a', '1').point(20, {}, [0]);

const table: readonly (readonly [string, number, (topic: SketchedTopic) => unknown, string])[] = [
  ['my begin is whole and nothing follows', 1, () => null, 'begun'],
  ['my last point is whole', 1, (t) => t.row(0, 10, 'a', '1').point(20), 'begun'],
  ['a point of mine is in one partition only', 1, torn, 'over'],
  ['rows of mine follow, the last points are equal', 1, (t) => t.row(1, 10, 'a', '1'), 'over'],
  ['the epoch is claimed and no record of it exists', 2, () => null, 'not-begun'],
  ['the former owner left a torn batch', 2, torn, 'not-begun'],
  ['my begin is in one partition only', 2, (t) => t.begin(2, 5, {}, [1]), 'over'],
  [
    'my begin is in one partition, behind a torn batch',
    2,
    (t) => torn(t).begin(2, 5, {}, [0]),
    'over',
  ],
  ['my begin is whole behind a torn batch', 2, (t) => torn(t).begin(2, 5), 'begun'],
  ['the begin of an epoch before mine is half', 3, (t) => t.begin(2, 5, {}, [0]), 'not-begun'],
];

for (const [what, epoch, write, expected] of table) {
  test(`${what}: ${expected}`, () => {
    assert.is(found(epoch, write), expected);
  });
}

const emptyEnd: LogEnd = {
  checkpoint: null,
  point: null,
  begin: null,
  pastCheckpoint: [],
  unhealed: null,
  unfinished: [],
};

test('an empty log has no epoch', () => {
  assert.is(foundAtEnd(emptyEnd, 1), 'not-begun');
});

const done = (): Promise<void> => Promise.resolve();

class MemoryProducer implements TransactionalProducer {
  isClosed = false;

  readonly open = done;
  readonly send = done;

  async commit(): Promise<readonly bigint[]> {
    return [0n];
  }

  onClose: () => Promise<unknown> = done;

  async close(): Promise<void> {
    this.isClosed = true;
    await this.onClose();
  }
}

interface Doing {
  /** Called at each step; what it throws is the failure of that action. */
  readonly on?: (step: string, control: MemoryControlLog) => unknown;
  /** What the log holds for the drain. */
  readonly end?: (epoch: number) => LogEnd;
}

function ownerOf(control: MemoryControlLog, { on = () => null, end = () => emptyEnd }: Doing = {}) {
  const producers: MemoryProducer[] = [];
  const steps: string[] = [];
  const onStep = (step: string): void => {
    steps.push(step);
  };
  const owner = new EpochOwner({
    control,
    node: 'a',
    around: { nowMs: () => 0, randomId: () => `claim-${(control.state.current?.epoch ?? 0) + 1}` },
    createProducer: () => {
      const producer = new MemoryProducer();
      producers.push(producer);
      return producer;
    },
    drain: async (epoch) => {
      await on('drain', control);
      return end(epoch);
    },
    begin: async (epoch) => {
      onStep('begin');
      await on('begin', control);
      return { checkpoint: { at: at(epoch, 5), nextOffsets: [1n] }, unfinished: [] };
    },
    onStep,
  });
  return { owner, producers, steps };
}

const fenced = () => otherPublisher('understudy', 'PRODUCER_FENCED', null);
const taken = { code: 'LOST_LEADERSHIP' };

test('a node that is asked for the next epoch claims it and begins it', async () => {
  const control = new MemoryControlLog(claimOf(1, 'b'));
  const { owner, producers, steps } = ownerOf(control);
  const owned = await owner.own(2);
  assert.equal(steps, ['verify', 'claim', 'init', 'verify', 'drain', 'begin']);
  assert.is(owned?.epoch, 2);
  assert.is(owned?.producer, producers[0]);
  assert.equal(owned?.checkpoint.at, at(2, 5));
  assert.is(owner.steppedDown.aborted, false);
});

/** An append that fails, or never ends, although its claim is in the log later. */
class LosingControlLog extends MemoryControlLog {
  late: (() => void) | null = null;
  readonly #lands: 'with its failure' | 'during the verification' | 'never';

  constructor(lands: 'with its failure' | 'during the verification' | 'never') {
    super(claimOf(1, 'b'));
    this.#lands = lands;
  }

  override async append(record: ControlRecord): Promise<{ readonly offset: bigint }> {
    if (record.kind !== 'claim') return super.append(record);
    const land = (): void => void super.append(record);
    if (this.#lands === 'with its failure') land();
    if (this.#lands === 'during the verification') this.late = land;
    throw controlLogClosed();
  }

  override async verify(): Promise<ControlState> {
    const { late } = this;
    if (late === null) return super.verify();
    this.late = null;
    setImmediate(late);
    // The nonce waits for the connection on which the claim waits too.
    return new Promise(() => undefined);
  }
}

test('a claim whose answer is lost counts when it is read, also while the node waits', async () => {
  for (const lands of ['with its failure', 'during the verification'] as const) {
    const { owner } = ownerOf(new LosingControlLog(lands));
    assert.is((await owner.own(2))?.epoch, 2, lands);
  }
});

test('a claim that failed and is not in the log ends in its own failure', async () => {
  const { owner } = ownerOf(new LosingControlLog('never'));
  await rejects(owner.own(2), { code: 'TIMED_OUT' });
});

test('a node that is asked for an epoch that another node has claimed claims nothing', async () => {
  const control = new MemoryControlLog(claimOf(1, 'b'), claimOf(2, 'c'));
  const { owner, producers, steps } = ownerOf(control);
  assert.is(await owner.own(2), null);
  assert.equal(steps, ['verify']);
  assert.equal(producers, []);
  assert.is(owner.steppedDown.aborted, true);
});

test('a torn batch of its own epoch makes it begin the next one', async () => {
  const control = new MemoryControlLog(claimOf(1, 'a'));
  const checkpoint = { at: at(1, 3), nextOffsets: [1n] };
  const stray = new SketchedTopic(1).row(0, 10, 'x', '1').partitions[0]?.[0];
  assert.ok(stray !== undefined);
  const { owner, producers } = ownerOf(control, {
    end: () => ({ ...emptyEnd, checkpoint, pastCheckpoint: [stray] }),
  });
  const owned = await owner.own(null);
  assert.is(owned?.epoch, 2);
  assert.equal(
    producers.map(({ isClosed }) => isClosed),
    [true, false],
  );
  assert.equal(owned?.end.unhealed, checkpoint, 'the keys of voided rows are read again');
});

test('fenced by a stale owner, the owner verifies and restarts with another producer', async () => {
  let failures = 2;
  const on = (step: string) => {
    if (step !== 'begin' || failures === 0) return;
    failures -= 1;
    throw fenced();
  };
  const { owner, producers, steps } = ownerOf(new MemoryControlLog(claimOf(1, 'a')), { on });
  assert.is((await owner.own(null))?.epoch, 1);
  const restart = ['verify', 'init', 'verify', 'drain', 'begin'];
  assert.equal(steps, [...restart, ...restart, ...restart]);
  assert.equal(
    producers.map(({ isClosed }) => isClosed),
    [true, true, false],
  );
});

test('an owner that is fenced again and again gives up, and leaves no producer', async () => {
  const on = (step: string) => {
    if (step === 'drain') throw fenced();
  };
  const control = new MemoryControlLog(claimOf(1, 'a'));
  const { owner, producers } = ownerOf(control, { on });
  await rejects(owner.own(null), taken);
  assert.is(producers.length, 5);
  assert.ok(producers.every(({ isClosed }) => isClosed));
  assert.is(control.listeners.size, 0);
});

test('any other failure ends the attempt at once', async () => {
  const on = (step: string) => {
    if (step === 'drain') throw new Error('out of reach');
  };
  const { owner, producers } = ownerOf(new MemoryControlLog(claimOf(1, 'a')), { on });
  await rejects(owner.own(null), { message: 'out of reach' });
  assert.equal(
    producers.map(({ isClosed }) => isClosed),
    [true],
  );
});

test('a claim that is read during an action ends the ownership, whatever its reply', async () => {
  for (const end of ['replies', 'fails']) {
    for (const during of ['drain', 'begin']) {
      const control = new MemoryControlLog(claimOf(1, 'a'));
      const on = async (step: string) => {
        if (step !== during) return;
        await control.append(claimOf(2, 'b'));
        if (end === 'fails') throw new Error('the producer is closed');
      };
      const { owner, producers, steps } = ownerOf(control, { on });
      assert.is(await owner.own(null), null, `${during} ${end}`);
      assert.is(steps.at(-1), during, 'nothing is begun after it');
      assert.is(producers[0]?.isClosed, true);
      assert.is(owner.steppedDown.aborted, true);
    }
  }
});

test('a claim that is read between two actions keeps it from fencing the new owner', async () => {
  const control = new MemoryControlLog(claimOf(1, 'a'));
  const checkpoint = { at: at(1, 3), nextOffsets: [1n] };
  const stray = new SketchedTopic(1).row(0, 10, 'x', '1').partitions[0]?.[0];
  assert.ok(stray !== undefined);
  const { owner, producers } = ownerOf(control, {
    on: () => {
      // The producer of the torn epoch closes between the claim of epoch 2 and the next init.
      const [first] = producers;
      if (first !== undefined) first.onClose = () => control.append(claimOf(3, 'b'));
    },
    end: () => ({ ...emptyEnd, checkpoint, pastCheckpoint: [stray] }),
  });
  assert.is(await owner.own(null), null);
  assert.is(producers.length, 1);
});

test('a claim that is read while the node leads closes the producer and is signalled', async () => {
  const control = new MemoryControlLog(claimOf(1, 'a'));
  const { owner, producers } = ownerOf(control);
  await owner.own(null);
  await control.append({ kind: 'nonce', node: 'b', value: 'b/1' });
  assert.is(owner.steppedDown.aborted, false);
  await control.append(claimOf(2, 'b'));
  assert.is(owner.steppedDown.aborted, true);
  assert.is(producers[0]?.isClosed, true);
});

test('its own release ends the ownership too', async () => {
  const control = new MemoryControlLog(claimOf(1, 'a'));
  const { owner } = ownerOf(control);
  await owner.own(null);
  await control.append({
    kind: 'release',
    claim: 'claim-1',
    request: 'r',
    node: 'a',
    time: recordTime,
  });
  assert.is(owner.steppedDown.aborted, true);
});

test('a leader that was fenced verifies whether the epoch is still its own', async () => {
  const control = new MemoryControlLog(claimOf(1, 'a'));
  const { owner, producers } = ownerOf(control);
  await owner.own(null);
  const { verified } = control;
  assert.is(await owner.isStillOwner(), true);
  assert.is(control.verified, verified + 1);
  assert.is(producers[0]?.isClosed, true);
  assert.is(producers.length, 1, 'the next attempt makes the next producer');
});

test('a leader that was fenced by its successor has stepped down', async () => {
  const control = new MemoryControlLog(claimOf(1, 'a'));
  const { owner } = ownerOf(control);
  await owner.own(null);
  // Not read yet: the verification reads it.
  const { append } = control;
  control.verify = async () => {
    await append.call(control, claimOf(2, 'b'));
    return control.state;
  };
  assert.is(await owner.isStillOwner(), false);
  assert.is(owner.steppedDown.aborted, true);
});

test('after close nothing of the control log is heard any more', async () => {
  const control = new MemoryControlLog(claimOf(1, 'a'));
  const { owner, producers } = ownerOf(control);
  await owner.own(null);
  await owner.close();
  assert.is(control.listeners.size, 0);
  assert.is(producers[0]?.isClosed, true);
});

async function rejects(promise: Promise<unknown>, expected: object): Promise<void> {
  const error = await promise.then(
    () => null,
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof Error, 'it was to fail');
  for (const [key, value] of Object.entries(expected)) {
    assert.is((error as unknown as Record<string, unknown>)[key], value);
  }
}

test.run();
