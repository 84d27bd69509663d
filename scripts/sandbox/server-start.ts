/**
 * Waits until a server that was just started answers, within a time limit. It fails with the end of
 * the server's log, at once when the server has exited.
 */
import { open, stat } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import type { StartedProcess } from './process-ledger.ts';

/** A port that is taken three times in a row is not by chance. */
export const startTriesMax = 3;
const pollMs = 50;
const shownLogBytes = 2_000;

export async function untilReady(
  started: StartedProcess,
  timeoutMs: number,
  ask: () => Promise<void>,
): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    let answer: unknown;
    try {
      await ask();
      return;
    } catch (error) {
      answer = error;
    }
    const ended = started.ended();
    if (ended !== undefined) {
      const log = await logSince(started.logFile, -shownLogBytes);
      throw new UnderstudyError(
        'PREREQUISITE',
        `a server of the sandbox ended while starting (${ended}): ${log.trim()}`,
        `Its whole log is ${started.logFile}.`,
        answer,
      );
    }
    if (Date.now() > deadline) {
      throw new UnderstudyError(
        'TIMED_OUT',
        `a server of the sandbox did not answer within ${timeoutMs / 1000} s`,
        `See ${started.logFile}; the machine may be too busy.`,
        answer,
      );
    }
    await sleep(pollMs);
  }
}

/** The end of a process, as text; undefined when it still runs after the timeout. */
export async function endWithin(
  started: StartedProcess,
  timeoutMs: number,
): Promise<string | undefined> {
  // The timer keeps the event loop alive, since a child alone does not; it ends with the wait.
  const timer = new AbortController();
  const timeout = sleep(timeoutMs, undefined, { signal: timer.signal }).catch(() => undefined);
  const how = await Promise.race([started.exit, timeout]);
  timer.abort();
  return how;
}

export async function logSize(file: string): Promise<number> {
  return (await stat(file).catch(() => undefined))?.size ?? 0;
}

/** The log from a byte offset; a negative offset counts from the end. */
export async function logSince(file: string, offset: number): Promise<string> {
  const size = await logSize(file);
  if (size === 0) return '';
  const from = offset < 0 ? Math.max(0, size + offset) : Math.min(offset, size);
  const handle = await open(file, 'r');
  try {
    const buffer = Buffer.alloc(size - from);
    await handle.read(buffer, 0, buffer.length, from);
    return buffer.toString('utf8');
  } finally {
    await handle.close();
  }
}

/** Logged by Postgres, Kafka and the registry when another process has the port. */
export function portWasTaken(log: string): boolean {
  return /address already in use|BindException|could not bind|seems to be in use/i.test(log);
}
