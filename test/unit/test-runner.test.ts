/**
 * Proves the test runner on small files that pass, fail, hang, leak, crash or hold nothing. A
 * runner that counts a broken file as passed would hide every other defect, so each way of breaking
 * is run for real, as a process.
 */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { longestFirst, readDurations, saveDurations } from '../../scripts/test-runner/durations.ts';
import { makePlan } from '../../scripts/test-runner/plan.ts';
import { closingLine, judge, parseSummary } from '../../scripts/test-runner/summary.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const uvu = import.meta.resolve('uvu');
/** Ten seconds in steps of 50 ms: a loaded machine starts Node slowly. */
const startWaits = 200;
const header = `import { suite } from '${uvu}';\nconst t = suite('fixture');\n`;

interface Run {
  readonly exitCode: number | null;
  readonly lines: readonly string[];
  readonly text: string;
}

interface Context {
  folder: string;
}

const runner = suite<Context>('test runner');

runner.before((context) => {
  context.folder = mkdtempSync(join(tmpdir(), 'understudy-runner-'));
  writeFileSync(join(context.folder, 'package.json'), '{"type":"module"}');
});

runner.after((context) => {
  rmSync(context.folder, { recursive: true });
});

function write(context: Context, name: string, body: string, head = ''): string {
  const path = join(context.folder, name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `${head}${header}${body}\nt.run();\n`);
  return path;
}

function start(words: readonly string[], env: Readonly<Record<string, string>> = {}) {
  return spawn(process.execPath, ['--import', 'tsx', 'scripts/run-tests.ts', ...words], {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

async function run(words: readonly string[], env: Readonly<Record<string, string>> = {}) {
  const child = start(words, env);
  let text = '';
  const keep = (chunk: string): void => {
    text += chunk;
  };
  child.stdout.setEncoding('utf8').on('data', keep);
  child.stderr.setEncoding('utf8').on('data', keep);
  const exitCode = await new Promise<number | null>((resolve) => {
    child.once('close', resolve);
  });
  const result: Run = { exitCode, text, lines: text.trimEnd().split('\n') };
  return result;
}

/** A zombie counts as gone: it waits for a parent that may be no good reaper, as in containers. */
function isAlive(pid: number): boolean {
  const ps = spawnSync('ps', ['-o', 'stat=', '-p', String(pid)], { encoding: 'utf8' });
  assert.is(ps.error, undefined);
  const state = ps.stdout.trim();
  return state !== '' && !state.startsWith('Z');
}

const passing = `t('a', () => {});\nt('b', () => {});`;

runner('counts passed tests over files and exits 0', async (context) => {
  const one = write(context, 'green/one.test.ts', passing);
  const two = write(context, 'green/two.test.ts', passing);
  const result = await run([one, two]);
  assert.is(result.exitCode, 0, result.text);
  assert.is(result.lines.at(-1), '4 passed, 0 failed');
  assert.is(result.lines.length, 3, 'one line per file, no output of files that passed');
});

runner('counts failed tests, prints their output and exits 1', async (context) => {
  const body = `${passing}\nt('red', () => { throw new Error('seen in the output'); });`;
  const result = await run([write(context, 'red.test.ts', body)]);
  assert.is(result.exitCode, 1);
  assert.is(result.lines.at(-1), '2 passed, 1 failed');
  assert.match(result.text, 'seen in the output');
});

runner('tells at the end once more what failed, in short', async (context) => {
  const body = `${passing}
t('red', () => { throw new Error('the cause\\nin a second line'); });
t('crimson', () => { throw new Error('another cause'); });`;
  const red = write(context, 'told/a-red.test.ts', body);
  const green = write(context, 'told/b-green.test.ts', passing);
  const { lines } = await run([red, green]);
  const seen = lines.slice(-5);
  assert.is(seen[0], 'what failed:');
  assert.ok(seen[1]?.endsWith('/told/a-red.test.ts: 2 failed'), seen[1]);
  assert.is(seen[2]?.trim(), 'fixture  "red": the cause / in a second line');
  assert.is(seen[3]?.trim(), 'fixture  "crimson": another cause');
});

runner('ends a file that hangs, with all that it started', async (context) => {
  const pidFile = join(context.folder, 'pid');
  const body = `import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
t('hangs', async () => {
  const child = spawn('sleep', ['100']);
  writeFileSync(${JSON.stringify(pidFile)}, String(child.pid));
  await new Promise((resolve) => setTimeout(resolve, 100_000));
});`;
  const file = write(context, 'hang.test.ts', body, '// time-limit: 4s\n');
  const result = await run([file]);
  assert.is(result.exitCode, 1);
  assert.is(result.lines.at(-1), '0 passed, 1 failed');
  assert.match(result.text, 'did not end within 4 s');
  assert.match(result.text, /still open: .*ProcessWrap/);
  assert.not(isAlive(Number(readFileSync(pidFile, 'utf8'))), 'its child is gone');
});

runner('fails files that leak a handle, leave a process or crash late', async (context) => {
  write(context, 'late/leak.test.ts', `${passing}\nsetInterval(() => {}, 1000);`);
  const child = `import { spawn } from 'node:child_process';
t('leaves a process', () => spawn('sleep', ['60'], { stdio: 'ignore' }).unref());`;
  write(context, 'late/child.test.ts', child);
  const crash = `t('passes', () => { setTimeout(() => Promise.reject(new Error('late')), 300); });`;
  write(context, 'late/crash.test.ts', crash);
  const result = await run(['--jobs', '3', join(context.folder, 'late')]);
  assert.is(result.exitCode, 1);
  assert.is(result.lines.at(-1), '4 passed, 3 failed', result.text);
  assert.match(result.text, /leak\.test\.ts.*2 passed, 1 failed/);
  assert.match(result.text, 'did not exit within 5 s after its tests');
  assert.match(result.text, /leak[^✓✗]*still open: .*Timeout/);
  assert.match(result.text, /left processes behind: \d+ sleep 60/);
  assert.match(result.text, 'crashed after its tests (exit code 1)');
});

runner('fails files that hold no test, end early or break in a hook', async (context) => {
  write(context, 'early/empty.test.ts', '');
  write(context, 'early/exit.test.ts', `t('a', () => process.exit(0));`);
  write(context, 'early/import.test.ts', `import './nothing.ts';\n${passing}`);
  write(context, 'early/hook.test.ts', `t.before(() => { throw new Error('x'); });\n${passing}`);
  const result = await run([join(context.folder, 'early')]);
  assert.is(result.exitCode, 1);
  assert.is(result.lines.at(-1), '0 passed, 5 failed', result.text);
  assert.match(result.text, 'holds no test');
  assert.match(result.text, /exit\.test\.ts.*\n +ended without a summary/);
  assert.match(result.text, /import\.test\.ts.*\n +ended without a summary/);
  assert.match(result.text, 'a hook threw and its tests did not run');
});

runner('says how many tests were skipped', async (context) => {
  const result = await run([write(context, 'skip.test.ts', `${passing}\nt.skip('c', () => {});`)]);
  assert.is(result.exitCode, 0);
  assert.is(result.lines.at(-1), '2 passed, 0 failed, 1 skipped');
});

runner('refuses to run nothing', async () => {
  const result = await run(['test/unit/no-such-file.test.ts']);
  assert.is(result.exitCode, 1);
  assert.is(result.lines.at(-1), '0 passed, 1 failed');
  assert.match(result.text, 'no test file matches');
});

runner('runs integration files against servers that are there already', async (context) => {
  const body = `t('sees them', () => {
  if (process.env.UNDERSTUDY_TEST_POSTGRES !== 'given') throw new Error('not handed on');
});`;
  const file = write(context, 'integration/stack.test.ts', body);
  const result = await run([file], { UNDERSTUDY_TEST_POSTGRES: 'given' });
  assert.is(result.exitCode, 0, result.text);
  assert.is(result.lines.at(-1), '1 passed, 0 failed');
});

runner('ends the running files when it is told to end', async (context) => {
  const body = `t('hangs', async () => {
  console.log('pid ' + process.pid);
  await new Promise((resolve) => setTimeout(resolve, 100_000));
});`;
  const pidFile = join(context.folder, 'interrupted-pid');
  const writePid = `import { writeFileSync } from 'node:fs';
writeFileSync(${JSON.stringify(pidFile)}, String(process.pid));\n`;
  const file = write(context, 'interrupted.test.ts', writePid + body);
  const child = start([file]);
  for (let waits = 0; !existsSync(pidFile); waits += 1) {
    assert.ok(waits < startWaits, 'the file started');
    await sleep(50);
  }
  child.kill('SIGTERM');
  const exitCode = await new Promise((resolve) => {
    child.once('exit', resolve);
  });
  assert.is(exitCode, 143);
  await sleep(200);
  assert.not(isAlive(Number(readFileSync(pidFile, 'utf8'))));
});

runner('plans unit files first and takes limits from the first lines', (context) => {
  const unit = write(context, 'plan/unit/z.test.ts', passing, '// time-limit: 90s\n');
  const stack = write(context, 'plan/integration/a.test.ts', passing);
  const { files } = makePlan([stack, unit]);
  assert.equal(
    files.map((file) => [file.needsStack, file.limitMs]),
    [
      [false, 90_000],
      [true, 240_000],
    ],
  );
  assert.throws(() => makePlan(['--frobnicate']), 'unknown option');
  const globbed = makePlan(['test/**/test-run*.test.ts']).files.map((file) => file.path);
  assert.equal(globbed, ['test/unit/test-runner.test.ts']);
});

runner('begins with the longest file, by the last run or by its limit', (context) => {
  const path = join(context.folder, 'durations.json');
  assert.equal(readDurations(path), {});
  saveDurations({ 'test/a.test.ts': 5_000, 'test/b.test.ts': 90_000, '/tmp/other.ts': 1 }, path);
  saveDurations({ 'test/a.test.ts': 7_000 }, path);
  const durations = readDurations(path);
  assert.equal(durations, { 'test/a.test.ts': 7_000, 'test/b.test.ts': 90_000 });
  const files = ['test/a.test.ts', 'test/b.test.ts', 'test/new.test.ts'].map((name) => {
    return { path: name, limitMs: 240_000, needsStack: true, form: 'short' } as const;
  });
  const order = longestFirst(files, durations).map((file) => basename(file.path));
  assert.equal(order, ['b.test.ts', 'new.test.ts', 'a.test.ts']);
});

runner('leaves files of a longer form out of a shorter one, unless they are named', (context) => {
  const short = write(context, 'form/fault/a.test.ts', passing);
  const long = write(context, 'form/fault/b.test.ts', passing, '// runs: full\n');
  write(context, 'form/fault/c.test.ts', passing, '// runs: ci, since others find the same\n');
  const folder = dirname(short);
  const planned = (...words: string[]) => makePlan(words).files.map(({ path }) => basename(path));
  assert.equal(planned(folder), ['a.test.ts']);
  assert.equal(planned('--ci', folder), ['a.test.ts', 'c.test.ts']);
  assert.equal(planned('--full', folder), ['a.test.ts', 'b.test.ts', 'c.test.ts']);
  assert.equal(planned(long), ['b.test.ts']);
  const forms = (...words: string[]) => makePlan(words).files.map(({ form }) => form);
  assert.equal(forms(folder), ['short']);
  assert.equal(forms(short), ['ci'], 'a file that is named tries what it can');
  assert.equal(forms('--full', short), ['full']);
});

runner('plans all files of this repository, in each form', () => {
  const [short, ci, full] = [[], ['--ci'], ['--full']].map((words) => makePlan(words).files.length);
  assert.ok((short ?? 0) < (ci ?? 0) && (ci ?? 0) < (full ?? 0), `${short}, ${ci}, ${full}`);
});

runner('judges a red file once, whatever its exit', () => {
  const text = '\n  Total:     3\n  Passed:    1\n  Skipped:   0\n  Duration:  1.00ms\n';
  const summary = parseSummary(`noise${text}`);
  assert.equal(summary, { total: 3, passed: 1, skipped: 0 });
  const red = judge({ kind: 'exited', exitCode: 1, signal: null }, summary);
  assert.equal(red.counts, { passed: 1, failed: 2, skipped: 0 });
  const killed = judge({ kind: 'exited', exitCode: null, signal: 'SIGSEGV' }, summary);
  assert.equal(killed.counts, { passed: 1, failed: 3, skipped: 0 });
  assert.is(closingLine(red.counts), '1 passed, 2 failed');
});

runner.run();
