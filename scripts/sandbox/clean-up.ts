/**
 * How a sandbox ends, in the one place that both the owner and the janitor use. Flows in: the
 * processes that were started, each with the signal that ends it, and the directories that were
 * made. Flows out: nothing of them is left. Only processes whose start time still fits are touched,
 * so that a number which now belongs to somebody else is never hit; doing it twice does no harm.
 */
import { rm } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { childrenOf, isAlive, type ProcessIdentity, signalProcess } from './process-identity.ts';

export interface OwnedProcess extends ProcessIdentity {
  /** Tried first; what is still there after the grace time gets SIGKILL. */
  readonly endSignal: NodeJS.Signals;
}

/** An immediate shutdown of Postgres takes some milliseconds; a loaded machine gets a margin. */
const graceMs = 5_000;
/** After SIGKILL only the kernel has work left: closing files, freeing memory. */
const afterKillMs = 10_000;
const pollMs = 20;

/** True when all of them, and the children they had, are gone. */
export async function endProcesses(owned: readonly OwnedProcess[]): Promise<boolean> {
  const alive = owned.filter(isAlive);
  // Backends of a killed Postgres end by themselves, but not before they have noticed: they are
  // waited for, else they would write into a directory that is being removed.
  const all = [...alive, ...alive.flatMap((one) => childrenOf(one.pid))];
  for (const one of alive) {
    signalProcess(one, one.endSignal);
    // A stopped process takes no signal but SIGKILL before it is continued.
    signalProcess(one, 'SIGCONT');
  }
  await waitUntilGone(alive, graceMs);
  // Who is left had its time, or lost its parent: a postmaster that ends waits for its backends.
  for (const one of all) signalProcess(one, 'SIGKILL');
  return waitUntilGone(all, afterKillMs);
}

export async function waitUntilGone(
  identities: readonly ProcessIdentity[],
  timeoutMs: number,
): Promise<boolean> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    if (!identities.some(isAlive)) return true;
    if (Date.now() > deadline) return false;
    await sleep(pollMs);
  }
}

export async function removeDirectories(directories: readonly string[]): Promise<void> {
  for (const directory of directories) {
    await rm(directory, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  }
}
