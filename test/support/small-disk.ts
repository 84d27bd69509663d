/**
 * A small disk of its own for a server, to be filled to the last byte and freed again. Flows in: a
 * size; flows out: a folder on a file system in memory, or null where nobody may mount one (only
 * root may): a test then says so, and leaves the machine's own disk alone.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, open, rm, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const blockBytes = 1024 * 1024;
const busyMaxMs = 30_000;

export class SmallDisk {
  /** Does not exist yet: a sandbox makes it and removes it. */
  readonly dir: string;
  readonly #mountPoint: string;

  private constructor(mountPoint: string) {
    this.#mountPoint = mountPoint;
    this.dir = join(mountPoint, 'servers');
  }

  static async mount(sizeMegabytes: number): Promise<SmallDisk | null> {
    const mountPoint = await mkdtemp(join(tmpdir(), 'understudy-disk-'));
    try {
      // The user that Postgres runs as has to pass through.
      const options = `size=${sizeMegabytes}m,mode=0711`;
      await run('mount', ['-t', 'tmpfs', '-o', options, 'understudy-test', mountPoint]);
      return new SmallDisk(mountPoint);
    } catch (error) {
      await rmdir(mountPoint);
      process.stderr.write(`no small disk can be mounted here: ${String(error)}\n`);
      return null;
    }
  }

  /** Leaves no byte. */
  async fill(): Promise<void> {
    const file = await open(this.#filler(), 'w');
    try {
      for (let size = blockBytes; size >= 1; ) {
        const written = await file.write(Buffer.alloc(size)).then(
          () => true,
          (error: NodeJS.ErrnoException) => {
            if (error.code !== 'ENOSPC') throw error;
            return false;
          },
        );
        if (!written) size = Math.floor(size / 2);
      }
    } finally {
      await file.close();
    }
  }

  async free(): Promise<void> {
    await rm(this.#filler(), { force: true });
  }

  /** A process that has just ended keeps its files open for a moment longer. */
  async unmount(): Promise<void> {
    const deadlineMs = Date.now() + busyMaxMs;
    for (;;) {
      const error = await run('umount', [this.#mountPoint]).then(
        () => null,
        (reason: Error) => reason,
      );
      if (error === null) break;
      if (!error.message.includes('busy') || Date.now() > deadlineMs) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    await rmdir(this.#mountPoint);
  }

  #filler(): string {
    return join(this.#mountPoint, 'filler');
  }
}
