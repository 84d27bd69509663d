/**
 * `npm run mutations`: whether the tests detect a broken rule. It runs all mutations, the named
 * ones, or with `--quick` those that need no servers, and prints for each the tests that failed; it
 * exits with 1 when a mutation survived. It works on a copy of the tree in a temporary folder. The
 * tests first run without a mutation, and each mutation is compiled before its tests run, so that a
 * failure is due to the broken rule.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { Edit, Mutation } from './mutation.ts';
import { quick } from './quick-list.ts';
import { withServers } from './server-list.ts';
import { strike } from './struck-rule.ts';

interface Outcome {
  readonly red: boolean;
  /** The names of the tests that failed; where there is none, why the file failed. */
  readonly failed: readonly string[];
  readonly output: string;
}

const usage = 'usage: npm run mutations -- [--quick] [name]…';
/** A run of several integration files on servers of its own. */
const runLimitMs = 900_000;
const outputBytesMax = 64 * 1024 * 1024;

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

function chosen(words: readonly string[]): readonly Mutation[] {
  const all = [...quick, ...withServers];
  const names = words.filter((word) => word !== '--quick');
  const unknown = names.find((name) => !all.some((mutation) => mutation.name === name));
  if (unknown !== undefined) throw new Error(`there is no mutation ${unknown}\n${usage}`);
  if (names.length > 0) return all.filter(({ name }) => names.includes(name));
  return words.includes('--quick') ? quick : all;
}

/** All files that are tracked or not ignored; installed packages and downloads are shared. */
function copyTree(folder: string): void {
  const listed = ['ls-files', '-z', '--cached', '--others', '--exclude-standard'];
  const paths = execFileSync('git', listed, { encoding: 'utf8' }).split('\0');
  for (const path of paths) if (path !== '') cpSync(path, join(folder, path));
  symlinkSync(resolve('node_modules'), join(folder, 'node_modules'));
  mkdirSync(join(folder, '.sandbox'));
  symlinkSync(resolve('.sandbox/cache'), join(folder, '.sandbox/cache'));
}

/**
 * Agents run the built command line. Types are checked, for a name that is gone would fail the
 * tests too; a rule that is struck may leave what nothing uses. Returns what is reported.
 */
function build(folder: string): string | null {
  const compiler = join('node_modules', 'typescript', 'bin', 'tsc');
  const idle = ['--noUnusedLocals', 'false', '--noUnusedParameters', 'false'];
  for (const words of [
    [compiler, '--noEmit', ...idle],
    ['--import', 'tsx', 'scripts/build.ts'],
  ]) {
    const { status, stdout, stderr } = spawnSync(process.execPath, words, {
      cwd: folder,
      encoding: 'utf8',
    });
    if (status !== 0) return stdout + stderr;
  }
  return null;
}

function run(folder: string, tests: readonly string[]): Outcome {
  const words = ['--import', 'tsx', 'scripts/run-tests.ts', ...tests];
  const ended = spawnSync(process.execPath, words, {
    cwd: folder,
    encoding: 'utf8',
    timeout: runLimitMs,
    maxBuffer: outputBytesMax,
  });
  const output = ended.stdout + ended.stderr;
  const failed = [...output.matchAll(/^[\s|]+FAIL\s+(.+)$/gm)].map(([, name = '']) => name);
  // A file that waits until its time limit names no test.
  const reasons = [...output.matchAll(/^ +✗ \S+: (.+)$/gm)].map(([, reason = '']) => reason);
  return { red: ended.status !== 0, failed: failed.length > 0 ? failed : reasons, output };
}

/** Returns a function that undoes the edits. */
function apply(folder: string, edits: readonly Edit[]): () => void {
  const before = new Map<string, string>();
  for (const { file, ...rule } of edits) {
    const path = join(folder, file);
    const text = readFileSync(path, 'utf8');
    if (!before.has(path)) before.set(path, text);
    writeFileSync(path, strike({ file, text }, rule));
  }
  return () => {
    for (const [path, text] of before) writeFileSync(path, text);
  };
}

/** Each test has to fail alone. */
function isKilled(folder: string, { name, edits, tests }: Mutation): boolean {
  const undo = apply(folder, edits);
  let killed = true;
  try {
    const refused = build(folder);
    if (refused !== null) {
      print(`BROKEN    ${name} does not compile, so its tests prove nothing:\n${refused}`);
      return false;
    }
    for (const test of tests) {
      const { red, failed } = run(folder, [test]);
      const by = failed.length > 0 ? failed.join('; ') : 'the file failed without a failed test';
      print(red ? `killed    ${name}: ${test}: ${by}` : `SURVIVED  ${name}: ${test} passes`);
      killed &&= red;
    }
  } finally {
    undo();
  }
  return killed;
}

function main(words: readonly string[]): number {
  const list = chosen(words);
  const tests = [...new Set(list.flatMap((mutation) => mutation.tests))];
  const folder = mkdtempSync(join(tmpdir(), 'understudy-mutations-'));
  try {
    copyTree(folder);
    const refused = build(folder);
    const unbroken = run(folder, tests);
    if (refused !== null || unbroken.red) {
      print(`${refused ?? unbroken.output}\nThe tests fail without a mutation: fix them first.`);
      return 1;
    }
    print(`${tests.length} test files pass without a mutation`);
    const survived = list.filter((mutation) => !isKilled(folder, mutation));
    print(`${list.length - survived.length} of ${list.length} mutations are killed`);
    return survived.length === 0 ? 0 : 1;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

process.exitCode = main(process.argv.slice(2));
