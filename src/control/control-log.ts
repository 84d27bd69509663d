/**
 * Follows the control log: one reader that lives as long as the process, the fold of all records it
 * has read, and a producer that appends. Records of all nodes flow in; the current ControlState
 * flows out, to listeners and to waits. It promises that the state is complete up to the end of the
 * log when `openControlLog` resolves, that it only moves forward in log order, and that after
 * `verify` it is at least as new as the log was at the call.
 *
 * A read that fails is retried, since an unreachable control log must not stop a running leader;
 * waits end with the error. A record that this version does not know ends the log.
 */

import { bug } from '../errors/bug.ts';
import { controlLogClosed } from '../errors/timed-out.ts';
import { UnderstudyError } from '../errors/understudy-error.ts';
import { controlLogStuck } from '../errors/unreachable.ts';
import type { Logger } from '../logger.ts';
import type { CommittedReader, FetchedPartition } from '../topic/log.ts';
import { backoffDelayMs, type Sleep, sleepOrAbort } from '../waiting.ts';
import {
  type ControlRecord,
  decodeControlRecord,
  encodeControlRecord,
  type RecordOf,
} from './control-records.ts';
import { type ControlState, emptyControlState, foldControl } from './control-state.ts';
import { StateWaiters } from './state-waiters.ts';

/**
 * Appends a record at most once per call: no retry once a request may have reached the broker. A
 * claim that is in the log twice, with another node's claim in between, would lose to that one
 * after compaction, which keeps the last record of a key: long after it has won.
 */
interface ControlProducer {
  append(key: string, value: string | null): Promise<{ readonly offset: bigint }>;
  close(): Promise<void>;
}

interface ControlLogDeps {
  readonly reader: CommittedReader;
  readonly producer: ControlProducer;
  /** Null for a command, which serves no node. */
  readonly node: string | null;
  readonly log: Logger;
  readonly randomId: () => string;
  readonly random: () => number;
  readonly sleep: Sleep;
}

export interface ControlLog {
  readonly state: ControlState;
  /** Resolves with null after `close`, and with the error that ended the log before. */
  readonly ended: Promise<UnderstudyError | null>;
  /** LogAppendTime of the newest record: after `verify`, the present time of the brokers. */
  readonly newestAppendMs: number;
  /** A rejection leaves open whether the record is in the log: check after a `verify`. */
  append(record: ControlRecord): Promise<{ readonly offset: bigint }>;
  /** Resolves with a state that holds everything that any node appended before the call. */
  verify(timeoutMs?: number): Promise<ControlState>;
  waitFor(
    predicate: (state: ControlState) => boolean,
    timeoutMs: number,
    signal?: AbortSignal,
  ): Promise<ControlState>;
  /**
   * Calls back after every portion that was read; a listener must not throw. The returned function
   * removes it.
   */
  onChange(listener: (state: ControlState) => void): () => void;
  answers(requestId: string): readonly RecordOf<'answer'>[];
  /** Closes the reader and the producer too. */
  close(): Promise<void>;
}

/** Far longer than working brokers need: an election, the restart of a broker. */
const verifyTimeoutMs = 30_000;
/** How long a fetch waits at the broker. It only decides how often an idle process fetches. */
const fetchWaitMs = 5_000;
/** The reader has retried for seconds before it fails: two failures in a row are an outage. */
const failuresUntilReported = 2;
/** The cap bounds how late the end of an outage is noticed. */
const pauses = { baseMs: 200, capMs: 5_000 };
/** At the longest pause, some minutes. */
const reportEveryMax = 64;

/** The first failures are reported, then fewer and fewer of those that follow. */
export function isReported(failures: number): boolean {
  return failures % reportEveryMax === 0 || Number.isInteger(Math.log2(failures));
}

/** At `fetchWaitMs` each: a broker that has records and returns none for so long is broken. */
const emptyFetchesMax = 6;
/** A nonce may be in the log twice, so its append is retried, within the time limit of `verify`. */
const nonceTriesMax = 5;
const partition = 0;

class KafkaControlLog implements ControlLog {
  readonly #deps: ControlLogDeps;
  readonly #waiters = new StateWaiters();
  readonly #listeners = new Set<(state: ControlState) => void>();
  readonly #stopping = new AbortController();
  /** Distinguishes this process's nonces from those of an earlier process of the node. */
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

  /** Reads up to the present end of the log, then continues in the background. */
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

  async verify(timeoutMs: number = verifyTimeoutMs): Promise<ControlState> {
    this.#noncesMade += 1;
    const made = this.#noncesMade;
    const value = `${this.#instance}/${made}`;
    const wait = new AbortController();
    // A later nonce of this process proves as much, and compaction may have dropped this one.
    const seen = this.waitFor(() => this.#nonceSeen >= made, timeoutMs, wait.signal);
    // The reader shows that the append succeeded; its failure ends the wait.
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
        if (failures >= failuresUntilReported) this.#waiters.rejectAll(error);
        await this.#pause(failures, error);
      }
    }
    this.#waiters.end(controlLogClosed());
    return null;
  }

  /** The log can never be read any further: every present and later wait ends with the error. */
  #end(error: unknown): UnderstudyError {
    const failure =
      error instanceof UnderstudyError ? error : bug('reading the control log failed', error);
    this.#waiters.end(failure);
    return failure;
  }

  async #pause(failures: number, error: UnderstudyError): Promise<void> {
    const { log, sleep, random } = this.#deps;
    const delayMs = backoffDelayMs(failures, pauses, random);
    const level = isReported(failures) ? 'warn' : 'debug';
    log[level]({ failures, delayMs, error }, 'reading the control log failed, retrying');
    await sleepOrAbort(delayMs, this.#stopping.signal, sleep);
  }

  async #readOnce(): Promise<void> {
    const from = new Map([[partition, this.#next]]);
    const [fetched] = await this.#deps.reader.fetch(from, { maxWaitMs: fetchWaitMs });
    if (fetched === undefined) throw bug('a fetch of one partition returned none');
    if (!this.#stopping.signal.aborted) this.#take(fetched);
  }

  /** Takes all of a portion or nothing, so that an error leaves a correct state. */
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
}

function isPassing(error: unknown): error is UnderstudyError {
  return error instanceof UnderstudyError && error.retry;
}

/**
 * Resolves when the log has been read to its present end. The ControlLog owns reader and producer
 * from here on: its `close`, or a failure to open, closes both.
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
