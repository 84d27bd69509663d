/**
 * The control log as it is followed: one reader that lasts as long as the process, the fold of all
 * it has read, and appending. Flows in: records of all nodes. Flows out: the current ControlState,
 * and answers to waiters. It promises that the state is whole up to the end of the log when `open`
 * resolves, that it only ever moves forward in log order, and that after `verify` it is at least as
 * new as the log was at the call.
 *
 * A reader that fails for a while is tried again, since an unreachable control log must not stop a
 * running leader; who waits is told. A record that this version does not understand ends the log.
 */

import { bug } from '../errors/bug.ts';
import { controlLogClosed } from '../errors/timed-out.ts';
import { UnderstudyError } from '../errors/understudy-error.ts';
import { controlLogStuck } from '../errors/unreachable.ts';
import type { Logger } from '../logger.ts';
import type { CommittedReader, FetchedPartition } from '../topic/log.ts';
import { backoffDelayMs } from '../waiting.ts';
import { nextClaim, type Owner } from './claim.ts';
import {
  type ControlRecord,
  decodeControlRecord,
  encodeControlRecord,
  type RecordOf,
} from './control-records.ts';
import { type ControlState, emptyControlState, foldControl } from './control-state.ts';
import { StateWaiters } from './state-waiters.ts';

/**
 * Lays a record down at most once per call: no retry once a request may have reached the broker. A
 * claim that stands there twice, with a rival's in between, would lose to it at compaction, which
 * keeps the last of equal keys, long after it has won.
 */
interface ControlProducer {
  append(key: string, value: string | null): Promise<{ readonly offset: bigint }>;
  close(): Promise<void>;
}

interface ControlLogDeps {
  readonly reader: CommittedReader;
  readonly producer: ControlProducer;
  /** Null for a command that serves no node. */
  readonly node: string | null;
  readonly log: Logger;
  /** Milliseconds since 1970; written into records for people, never compared. */
  readonly now: () => number;
  readonly randomId: () => string;
  readonly random: () => number;
  /** Rejects when the signal is aborted. */
  readonly sleep: (delayMs: number, signal?: AbortSignal) => Promise<void>;
}

type ClaimOutcome =
  | { readonly won: true; readonly epoch: number; readonly claimId: string }
  | { readonly won: false; readonly owner: Owner | null };

export interface ControlLog {
  readonly state: ControlState;
  /** Resolves with null after `close`, and with the error that ended the log before. */
  readonly ended: Promise<UnderstudyError | null>;
  /** LogAppendTime of the newest record: after `verify`, what the brokers' clocks say now. */
  readonly newestAppendMs: number;
  /** A rejection leaves open whether the record is there: look after a `verify`. */
  append(record: ControlRecord): Promise<{ readonly offset: bigint }>;
  /** Resolves with a state that holds everything appended by anybody before the call. */
  verify(timeoutMs: number): Promise<ControlState>;
  waitFor(
    predicate: (state: ControlState) => boolean,
    timeoutMs: number,
    signal?: AbortSignal,
  ): Promise<ControlState>;
  /** Calls back after every portion that was read; a listener must not throw. */
  onChange(listener: (state: ControlState) => void): () => void;
  /** Claims the epoch after the current one. When it rejects, the claim may still be accepted. */
  claim(timeoutMs: number): Promise<ClaimOutcome>;
  answers(requestId: string): readonly RecordOf<'answer'>[];
  /** Closes the reader and the producer too. */
  close(): Promise<void>;
}

/** How long a fetch waits at the broker: only how often an idle process asks depends on it. */
const fetchWaitMs = 5_000;
/** The reader itself has tried for seconds before it fails; twice in a row is no hiccup. */
const failuresUntilTold = 2;
/** The cap is how late the end of an outage may be noticed. */
const pauses = { baseMs: 200, capMs: 5_000 };
/** At `fetchWaitMs` each: a broker that has records and for so long gives none is not working. */
const emptyFetchesMax = 6;
/** Nonces may stand there twice, so they are tried again; the caller's time limit ends it too. */
const nonceTriesMax = 5;
const partition = 0;

class KafkaControlLog implements ControlLog {
  readonly #deps: ControlLogDeps;
  readonly #waiters: StateWaiters;
  readonly #listeners = new Set<(state: ControlState) => void>();
  readonly #stopping = new AbortController();
  /** Tells this process's nonces from those of an earlier one of the same node. */
  readonly #instance: string;
  #noncesMade = 0;
  #nonceSeen = 0;
  #state = emptyControlState;
  #next = 0n;
  #newestAppendMs = 0;
  #ended: Promise<UnderstudyError | null> = Promise.resolve(null);

  constructor(deps: ControlLogDeps) {
    this.#deps = deps;
    this.#instance = deps.randomId();
    this.#waiters = new StateWaiters(deps.sleep);
  }

  get state(): ControlState {
    return this.#state;
  }

  get newestAppendMs(): number {
    return this.#newestAppendMs;
  }

  get ended(): Promise<UnderstudyError | null> {
    return this.#ended;
  }

  /** Reads what there is now, then goes on reading in the background. */
  async open(): Promise<void> {
    const { reader } = this.#deps;
    const [watermarks] = await reader.watermarks();
    this.#next = watermarks?.lowWatermark ?? 0n;
    const end = watermarks?.lastStableOffset ?? 0n;
    for (let empty = 0; this.#next < end; ) {
      const before = this.#next;
      await this.#readOnce();
      empty = this.#next === before ? empty + 1 : 0;
      if (empty === emptyFetchesMax) throw controlLogStuck(before, end);
    }
    this.#ended = this.#follow();
  }

  append(record: ControlRecord): Promise<{ readonly offset: bigint }> {
    const { key, value } = encodeControlRecord(record);
    return this.#deps.producer.append(key, value);
  }

  async verify(timeoutMs: number): Promise<ControlState> {
    this.#noncesMade += 1;
    const made = this.#noncesMade;
    const value = `${this.#instance}/${made}`;
    const wait = new AbortController();
    // A later nonce of this process says as much, and compaction may have dropped the earlier.
    const seen = this.waitFor(() => this.#nonceSeen >= made, timeoutMs, wait.signal);
    // That it was appended is heard from the reader; that it could not be ends the wait.
    this.#appendNonce(value).catch((error: unknown) => wait.abort(error));
    return seen;
  }

  async #appendNonce(value: string): Promise<void> {
    for (let tries = 1; ; tries += 1) {
      try {
        await this.append({ kind: 'nonce', node: this.#deps.node, value });
        return;
      } catch (error) {
        if (!isPassing(error) || tries === nonceTriesMax) throw error;
        const delayMs = backoffDelayMs(tries, pauses, this.#deps.random);
        await this.#deps.sleep(delayMs, this.#stopping.signal);
      }
    }
  }

  waitFor(
    predicate: (state: ControlState) => boolean,
    timeoutMs: number,
    signal?: AbortSignal,
  ): Promise<ControlState> {
    return this.#waiters.wait(this.#state, predicate, timeoutMs, signal);
  }

  onChange(listener: (state: ControlState) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async claim(timeoutMs: number): Promise<ClaimOutcome> {
    const { node, randomId } = this.#deps;
    if (node === null) throw bug('a command that serves no node cannot claim an epoch');
    const claim = { ...nextClaim(this.#state, node), id: randomId() };
    const append = this.append({ kind: 'claim', ...claim, time: this.#time() });
    const failure = await append.then(
      () => null,
      (error: unknown) => error,
    );
    const { claims, current } = await this.verify(timeoutMs);
    if (current?.claimId === claim.id) return { won: true, epoch: claim.epoch, claimId: claim.id };
    // As long as nobody has taken the epoch, a claim without an answer can still arrive and win.
    if (failure !== null && claims.length < claim.epoch) throw failure;
    return { won: false, owner: current };
  }

  answers(requestId: string): readonly RecordOf<'answer'>[] {
    return this.#state.answers.get(requestId) ?? [];
  }

  async close(): Promise<void> {
    this.#stopping.abort();
    const { reader, producer } = this.#deps;
    await Promise.all([reader.close(), producer.close(), this.#ended]);
  }

  async #follow(): Promise<UnderstudyError | null> {
    let failures = 0;
    while (!this.#stopping.signal.aborted) {
      try {
        await this.#readOnce();
        failures = 0;
      } catch (error) {
        if (this.#stopping.signal.aborted) break;
        failures += 1;
        if (!isPassing(error)) return this.#end(error);
        if (failures >= failuresUntilTold) this.#waiters.rejectAll(error);
        await this.#pause(failures, error);
      }
    }
    this.#waiters.end(controlLogClosed());
    return null;
  }

  /** What cannot be read now can never be read: every wait, now and later, says so. */
  #end(error: unknown): UnderstudyError {
    const failure =
      error instanceof UnderstudyError ? error : bug('reading the control log failed', error);
    this.#waiters.end(failure);
    return failure;
  }

  async #pause(failures: number, error: UnderstudyError): Promise<void> {
    const { log, sleep, random } = this.#deps;
    const delayMs = backoffDelayMs(failures, pauses, random);
    log.warn({ failures, delayMs, error }, 'the control log cannot be read, trying again');
    const { signal } = this.#stopping;
    // An aborted sleep ends the loop by its own condition; it has no other way to fail.
    await sleep(delayMs, signal).catch((reason: unknown) => {
      if (!signal.aborted) throw reason;
    });
  }

  async #readOnce(): Promise<void> {
    const from = new Map([[partition, this.#next]]);
    const [fetched] = await this.#deps.reader.fetch(from, { maxWaitMs: fetchWaitMs });
    if (fetched === undefined) throw bug('a fetch of one partition answered none');
    if (!this.#stopping.signal.aborted) this.#take(fetched);
  }

  /** All of the portion or nothing, so that an error leaves a state that is right. */
  #take(fetched: FetchedPartition): void {
    const records = fetched.records.map(({ key, value, offset }) =>
      decodeControlRecord(key.toString(), value?.toString() ?? null, offset),
    );
    this.#next = fetched.nextOffset;
    if (records.length === 0) return;
    const times = fetched.records.map(({ timestampMs }) => timestampMs);
    this.#newestAppendMs = Math.max(this.#newestAppendMs, ...times);
    this.#state = foldControl(this.#state, records);
    for (const record of records) this.#noteNonce(record);
    this.#waiters.settle(this.#state);
    for (const listener of this.#listeners) listener(this.#state);
  }

  #noteNonce(record: ControlRecord): void {
    if (record.kind !== 'nonce') return;
    const [instance, made] = record.value.split('/');
    if (instance !== this.#instance) return;
    this.#nonceSeen = Math.max(this.#nonceSeen, Number(made));
  }

  #time(): string {
    return new Date(this.#deps.now()).toISOString();
  }
}

function isPassing(error: unknown): error is UnderstudyError {
  return error instanceof UnderstudyError && error.retry;
}

/**
 * Resolves when all that the log holds now has been read. Closes reader and producer at its end.
 */
export async function openControlLog(deps: ControlLogDeps): Promise<ControlLog> {
  const log = new KafkaControlLog(deps);
  try {
    await log.open();
  } catch (error) {
    await log.close();
    throw error;
  }
  return log;
}
