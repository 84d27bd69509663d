/**
 * A cache of directories that take long to download and never change: the Java archives and other
 * Postgres versions. It returns a complete directory, which the caller's function fills at the
 * first use. Two sandboxes may start at the same moment: an incomplete directory never has the
 * final name, and a lock prevents the second from downloading the same files.
 */
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { identify, isAlive, type ProcessIdentity } from './process-identity.ts';

/** 220 MB over a slow line; a download that takes longer than this has stopped. */
const lockWaitMaxMs = 20 * 60_000;
const lockPollMs = 250;

export async function cached(
  target: string,
  make: (emptyDirectory: string) => Promise<void>,
): Promise<string> {
  if (existsSync(target)) return target;
  await mkdir(dirname(target), { recursive: true });
  const lock = `${target}.lock`;
  await takeLock(lock);
  try {
    if (existsSync(target)) return target;
    await removePartial(target);
    const partial = `${target}.partial-${randomBytes(4).toString('hex')}`;
    await mkdir(partial);
    await make(partial);
    await rename(partial, target);
    return target;
  } finally {
    await rm(lock, { force: true });
  }
}

/** Left by an interrupted run. */
async function removePartial(target: string): Promise<void> {
  const parent = dirname(target);
  for (const name of await readdir(parent)) {
    if (name.startsWith(`${basename(target)}.partial-`)) {
      await rm(join(parent, name), { recursive: true, force: true });
    }
  }
}

async function takeLock(lock: string): Promise<void> {
  const deadline = Date.now() + lockWaitMaxMs;
  for (;;) {
    try {
      await writeFile(lock, JSON.stringify(identify(process.pid)), { flag: 'wx' });
      return;
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
    }
    // A dead holder leaves its lock. If two waiters detect that at once, both may fill a directory,
    // and the rename decides: the lock saves work, correctness does not depend on it.
    if (!(await holderLives(lock))) await rm(lock, { force: true });
    else if (Date.now() > deadline) {
      throw new UnderstudyError(
        'TIMED_OUT',
        `another process holds ${lock} for more than ${lockWaitMaxMs / 60_000} minutes`,
        'End that process (its pid is in the file), or remove the file.',
      );
    } else await sleep(lockPollMs);
  }
}

async function holderLives(lock: string): Promise<boolean> {
  const text = await readFile(lock, 'utf8').catch((error: unknown) => {
    // It was released after the failed attempt to take it.
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return '';
    throw error;
  });
  // Empty: released, or its writer is between creating and filling it.
  if (text === '') {
    await sleep(lockPollMs);
    return existsSync(lock);
  }
  return isAlive(JSON.parse(text) as ProcessIdentity);
}
