/**
 * Finds the programs that have to be installed: Java and, for the first download, Maven. (Postgres
 * is downloaded when it is missing.) It returns the path of the program, or an error with the
 * command that installs it. On Debian, as root, it installs them itself when CI=true or
 * UNDERSTUDY_SANDBOX_INSTALL=1 allows it.
 */
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { runCommand, tryCommand } from './run-command.ts';

/** Kafka 4 brokers and the registry are built for Java 17. */
const javaMajorMin = 17;
const versionMs = 15_000;
const installMs = 15 * 60_000;

interface Package {
  readonly debian: string;
  readonly fedora: string;
  readonly homebrew: string;
}

const packages = {
  java: {
    debian: 'openjdk-17-jre-headless (openjdk-21-jre-headless on Debian 13)',
    fedora: 'java-21-openjdk-headless',
    homebrew: 'openjdk@21',
  },
  maven: { debian: 'maven', fedora: 'maven', homebrew: 'maven' },
} as const satisfies Record<string, Package>;

type Tool = keyof typeof packages;

export function installHint(tool: Tool): string {
  const { debian, fedora, homebrew } = packages[tool];
  return [
    `Debian, Ubuntu: apt-get install -y ${debian}`,
    `Fedora: dnf install -y ${fedora}`,
    `macOS: brew install ${homebrew}`,
  ].join('; ');
}

/** The first executable of that name on PATH. */
export function onPath(name: string): string | undefined {
  return (process.env['PATH'] ?? '')
    .split(delimiter)
    .filter((directory) => directory !== '')
    .map((directory) => join(directory, name))
    .find((file) => existsSync(file));
}

/** Only on disposable machines: in CI, or where the user allowed it. */
export async function mayInstall(): Promise<boolean> {
  const wanted = process.env['CI'] === 'true' || process.env['UNDERSTUDY_SANDBOX_INSTALL'] === '1';
  return wanted && process.getuid?.() === 0 && existsSync('/etc/debian_version');
}

export async function findJava(log: (line: string) => void): Promise<string> {
  const found = await usableJava();
  if (found.kind === 'found') return found.file;
  if (await mayInstall()) {
    await aptInstall(['openjdk-17-jre-headless', 'openjdk-21-jre-headless'], log);
    const installed = await usableJava();
    if (installed.kind === 'found') return installed.file;
  }
  throw new UnderstudyError('PREREQUISITE', found.message, installHint('java'));
}

export async function findMaven(log: (line: string) => void): Promise<string> {
  const found = onPath('mvn');
  if (found !== undefined) return found;
  if (await mayInstall()) {
    await aptInstall(['maven'], log);
    const installed = onPath('mvn');
    if (installed !== undefined) return installed;
  }
  throw new UnderstudyError(
    'PREREQUISITE',
    'Maven is needed once, to download Kafka and the schema registry, and `mvn` is not on PATH',
    installHint('maven'),
  );
}

type FoundJava =
  | { readonly kind: 'found'; readonly file: string }
  | { readonly kind: 'missing'; readonly message: string };

async function usableJava(): Promise<FoundJava> {
  const home = process.env['JAVA_HOME'];
  const candidates = [
    ...(home === undefined || home === '' ? [] : [join(home, 'bin', 'java')]),
    onPath('java'),
    // Homebrew does not put its Java on PATH, and the `java` of macOS there is only a stub.
    '/opt/homebrew/opt/openjdk@21/bin/java',
    '/opt/homebrew/opt/openjdk/bin/java',
    '/usr/local/opt/openjdk@21/bin/java',
    '/usr/local/opt/openjdk/bin/java',
  ].filter((file) => file !== undefined && existsSync(file));
  const needed = `Kafka and the schema registry need Java ${javaMajorMin} or newer`;
  let message = `${needed}, and none was found`;
  for (const file of candidates as string[]) {
    const { ok, output } = await tryCommand(file, ['-version'], { timeoutMs: versionMs });
    const major = ok ? javaMajor(output) : undefined;
    if (major !== undefined && major >= javaMajorMin) return { kind: 'found', file };
    if (major !== undefined) message = `${needed}; ${file} is Java ${major}`;
  }
  return { kind: 'missing', message };
}

/** `openjdk version "17.0.15" 2025-04-15`, `java version "1.8.0_391"`. */
export function javaMajor(versionText: string): number | undefined {
  const found = /version "(?:1\.)?(\d+)/.exec(versionText)?.[1];
  return found === undefined ? undefined : Number(found);
}

/** Installs the first of the named packages that this release of Debian has. */
async function aptInstall(names: readonly string[], log: (line: string) => void): Promise<void> {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  const hint = 'Install it by hand, then start the sandbox again.';
  log(`apt-get install ${names[0]} (allowed by CI=true or UNDERSTUDY_SANDBOX_INSTALL=1)`);
  await runCommand('apt-get', ['update', '-q'], { timeoutMs: installMs, env, hint });
  let chosen = names[0] ?? '';
  for (const name of names) {
    const { ok } = await tryCommand('apt-get', ['install', '-s', name], {
      timeoutMs: installMs,
      env,
    });
    if (ok) {
      chosen = name;
      break;
    }
  }
  await runCommand('apt-get', ['install', '-y', '-q', '--no-install-recommends', chosen], {
    timeoutMs: installMs,
    env,
    hint,
  });
}
