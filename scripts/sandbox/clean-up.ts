/**
 * Ends a sandbox, for both the owner and the janitor: ends the processes that were started, each by
 * its signal, and removes the directories that were created. Only processes whose start time still
 * matches are signalled, so that a reused pid is never hit. A second call does nothing.
 */
import { rm } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { childrenOf, isAlive, type ProcessIdentity, signalProcess } from './process-identity.ts';

export interface OwnedProcess extends ProcessIdentity {
  /** Sent first; a process that still runs after the grace time gets SIGKILL. */
  readonly endSignal: NodeJS.Signals;
}

/** An immediate shutdown of Postgres takes some milliseconds; a loaded machine gets a margin. */
const graceMs = 5_000;
/** After SIGKILL the kernel closes files and frees memory. */
const afterKillMs = 10_000;
const pollMs = 20;

/** True when all of them, and their children, have ended. */
export async function endProcesses(owned: readonly OwnedProcess[]): Promise<boolean> {
  const alive = owned.filter(isAlive);
  // Backends of a killed Postgres end by themselves, after they detect it. They are awaited, since
  // they would write into a directory that is being removed.
  const all = [...alive, ...alive.flatMap((one) => childrenOf(one.pid))];
  for (const one of alive) {
    signalProcess(one, one.endSignal);
    // A stopped process handles no signal but SIGKILL before it is continued.
    signalProcess(one, 'SIGCONT');
  }
  await waitUntilGone(alive, graceMs);
  // The rest exceeded the grace time, or lost their parent: a postmaster awaits its backends.
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
