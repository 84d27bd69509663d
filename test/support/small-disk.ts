/**
 * A small disk of its own for a server, to be filled to the last byte and freed again: a folder on
 * a file system in memory. Only root may mount one: where that fails a test is skipped, and leaves
 * the machine's own disk alone.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, open, rm, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { until } from './until.ts';

const run = promisify(execFile);
const blockBytes = 1024 * 1024;

export class SmallDisk {
  /** Does not exist yet: a sandbox creates and removes it. */
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
    const attempt = (): Promise<true | string> => {
      return run('umount', [this.#mountPoint]).then(
        () => true,
        (error: Error) => {
          if (!error.message.includes('busy')) throw error;
          return error.message;
        },
      );
    };
    await until(`${this.#mountPoint} is unmounted`, attempt, { pollMs: 100 });
    await rmdir(this.#mountPoint);
  }

  #filler(): string {
    return join(this.#mountPoint, 'filler');
  }
}
