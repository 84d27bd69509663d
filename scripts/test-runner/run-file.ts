/**
 * Runs one test file as a process of its own. Flows in: the file and its limit. Flows out: the
 * verdict, the duration and what it printed. It promises that no process of the file's group is
 * alive afterwards, and that a file which hangs, leaks or leaves processes behind fails.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { PlannedFile } from './plan.ts';
import { type Ending, judge, parseSummary, type Verdict } from './summary.ts';

export interface FileResult extends Verdict {
  readonly path: string;
  readonly durationMs: number;
  readonly output: string;
}

/** After its tests a process only closes its handles. */
const exitGraceMs = 5_000;
/** Time to print what is open before the process is ended. */
const reportMs = 500;
/** Time to end on SIGTERM (to stop servers the file started) before SIGKILL. */
const terminateGraceMs = 3_000;
/** Children that were signalled need a moment to end. */
const leftProcessesGraceMs = 2_000;
const pollMs = 50;
/** A file that prints without end must not eat the runner's memory; the end explains failures. */
const keptOutputBytes = 1_000_000;
/** While waiting only the end is searched: the summary is the last thing a file prints. */
const summarySearchLength = 20_000;

const preload = import.meta.resolve('./leak-watch.ts');
const tsx = import.meta.resolve('tsx');

/** Group ids of the files that run now, so that all can be ended. */
const runningGroups = new Set<number>();

export function killRunningFiles(): void {
  for (const group of runningGroups) signalGroup(group, 'SIGKILL');
}

export async function runFile(
  file: PlannedFile,
  env: Readonly<Record<string, string>>,
): Promise<FileResult> {
  const startedMs = performance.now();
  const { FORCE_COLOR: _, ...inherited } = process.env;
  const child = spawn(process.execPath, ['--import', tsx, '--import', preload, file.path], {
    env: { ...inherited, ...env, UNDERSTUDY_TEST_FORM: file.form, NO_COLOR: '1' },
    stdio: ['ignore', 'pipe', 'pipe'],
    // A group of its own, so that everything it starts can be ended with it.
    detached: true,
  });
  const printed = collectOutput(child);
  const ending = await waitForEnding(child, file.limitMs, printed);
  const output = printed();
  const verdict = judge(ending, parseSummary(output));
  return { ...verdict, path: file.path, durationMs: performance.now() - startedMs, output };
}

function collectOutput(child: ChildProcess): () => string {
  let kept = '';
  const keep = (text: string): void => {
    kept = (kept + text).slice(-keptOutputBytes);
  };
  child.stdout?.setEncoding('utf8').on('data', keep);
  child.stderr?.setEncoding('utf8').on('data', keep);
  return () => kept;
}

async function waitForEnding(
  child: ChildProcess,
  limitMs: number,
  printed: () => string,
): Promise<Ending> {
  const group = child.pid;
  const exited = exitOf(child);
  if (group === undefined) return exited;
  runningGroups.add(group);
  const ending = await Promise.race([exited, overstay(limitMs, printed, exited)]);
  if (ending.kind !== 'exited') await endGroup(child, group, exited);
  const left = await leftProcesses(group);
  signalGroup(group, 'SIGKILL');
  runningGroups.delete(group);
  // What the process wrote last may still be in the pipes.
  await Promise.race([closeOf(child), sleep(reportMs, undefined, { ref: false })]);
  const clean = ending.kind !== 'exited' || left.length === 0;
  return clean ? ending : { kind: 'left-processes', processes: left };
}

function exitOf(child: ChildProcess): Promise<Ending> {
  return new Promise((resolve) => {
    child.once('exit', (exitCode, signal) => resolve({ kind: 'exited', exitCode, signal }));
    child.once('error', (error) => resolve({ kind: 'not-started', reason: error.message }));
  });
}

async function closeOf(child: ChildProcess): Promise<void> {
  if (child.stdout?.closed && child.stderr?.closed) return;
  await new Promise((resolve) => child.once('close', resolve));
}

/** Resolves when the file has had its time; never, when it ends before. */
async function overstay(
  limitMs: number,
  printed: () => string,
  exited: Promise<Ending>,
): Promise<Ending> {
  let gone = false;
  exited.then(
    () => {
      gone = true;
    },
    () => {
      gone = true;
    },
  );
  const deadlineMs = performance.now() + limitMs;
  let doneMs: number | null = null;
  while (!gone) {
    const nowMs = performance.now();
    if (doneMs === null && parseSummary(printed().slice(-summarySearchLength)) !== null) {
      doneMs = nowMs;
    }
    if (doneMs !== null && nowMs - doneMs > exitGraceMs) {
      return { kind: 'leaked', graceMs: exitGraceMs };
    }
    if (nowMs > deadlineMs) return { kind: 'timed-out', limitMs };
    await sleep(pollMs);
  }
  return exited;
}

async function endGroup(child: ChildProcess, group: number, exited: Promise<Ending>) {
  child.kill('SIGUSR2');
  await Promise.race([exited, sleep(reportMs)]);
  signalGroup(group, 'SIGTERM');
  await Promise.race([exited, sleep(terminateGraceMs, undefined, { ref: false })]);
  signalGroup(group, 'SIGKILL');
}

function signalGroup(group: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-group, signal);
  } catch (error) {
    // ESRCH is the wanted state: the group has no process left.
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
  }
}

async function leftProcesses(group: number): Promise<readonly string[]> {
  const deadlineMs = performance.now() + leftProcessesGraceMs;
  let left = groupMembers(group);
  while (left.length > 0 && performance.now() < deadlineMs) {
    await sleep(pollMs);
    left = groupMembers(group);
  }
  return left;
}

/**
 * Living members of a process group, from /proc. A zombie is gone already: it waits for a parent
 * that may be no good reaper, as in containers. Without /proc nothing is reported.
 */
function groupMembers(group: number): readonly string[] {
  if (process.platform !== 'linux') return [];
  const members: string[] = [];
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const stat = readProcFile(`/proc/${name}/stat`);
    // The command name is in parentheses and may hold anything, so the fields start after it.
    const [state, , groupText] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    if (Number(groupText) !== group || state === 'Z') continue;
    const command = readProcFile(`/proc/${name}/cmdline`).replaceAll('\0', ' ').trim();
    members.push(`${name} ${command}`);
  }
  return members;
}

function readProcFile(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    // The process ended between the listing and the reading: it is no member any more.
    return '';
  }
}
