/**
 * The operating system user of Postgres. initdb and postgres refuse to run as root, so a root
 * process (a container, a CI job) has to run them as an ordinary user. Undefined where no switch is
 * needed. Also finds a directory that this user can enter.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { mayInstall } from './prerequisites.ts';
import type { OsUser } from './process-ledger.ts';
import { runCommand, tryCommand } from './run-command.ts';

const userName = 'postgres';
const quickMs = 15_000;
const createUser = `useradd --system --no-create-home --shell /usr/sbin/nologin ${userName}`;

export async function postgresUser(): Promise<OsUser | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  const found = await findUser();
  if (found !== undefined) return found;
  const hint = `Run: ${createUser}`;
  if (await mayInstall()) {
    const [file = '', ...args] = createUser.split(' ');
    await runCommand(file, args, { timeoutMs: quickMs, hint });
    const created = await findUser();
    if (created !== undefined) return created;
  }
  throw new UnderstudyError(
    'PREREQUISITE',
    `Postgres refuses to run as root and there is no operating system user "${userName}"`,
    `${hint} — or run the sandbox as an ordinary user.`,
  );
}

async function findUser(): Promise<OsUser | undefined> {
  const uid = await tryCommand('id', ['-u', userName], { timeoutMs: quickMs });
  const gid = await tryCommand('id', ['-g', userName], { timeoutMs: quickMs });
  if (!uid.ok || !gid.ok) return undefined;
  return { uid: Number(uid.output.trim()), gid: Number(gid.output.trim()) };
}

/** Whether that user can enter the directory. A checkout below /root is open to root only. */
export async function canEnter(directory: string, user: OsUser | undefined): Promise<boolean> {
  if (user === undefined) return true;
  const tried = await tryCommand('/bin/sh', ['-c', 'cd "$1"', 'sh', directory], {
    timeoutMs: quickMs,
    cwd: '/',
    user,
  });
  return tried.ok;
}

/**
 * The preferred directory when the user can enter it, otherwise `name` in `otherPlace`. Both are
 * created when they do not exist.
 */
export async function reachable(
  preferred: string,
  otherPlace: string,
  name: string,
  user: OsUser | undefined,
): Promise<string> {
  mkdirSync(preferred, { recursive: true });
  if (await canEnter(preferred, user)) return preferred;
  const other = join(otherPlace, name);
  mkdirSync(other, { recursive: true });
  if (await canEnter(other, user)) return other;
  throw new UnderstudyError(
    'PREREQUISITE',
    `the user "${userName}" can enter neither ${preferred} nor ${other}`,
    `Move the checkout to where "${userName}" can enter it (not below /root), or set TMPDIR.`,
  );
}
