/**
 * Runs the tests: `node --import tsx scripts/run-tests.ts [--ci | --full] [--jobs N] [file]…`.
 * It prints one line per file, the whole output of those that failed, at the end what failed once
 * more in short, and as the last line `N passed, N failed`. It promises exit code 0 only when
 * something ran and nothing failed, and that nothing it started is alive when it ends.
 *
 * Every file is a process of its own, so that no test sees another's state. Tests that need
 * Postgres, Kafka and a registry share one sandbox, started before the first of them, unless
 * UNDERSTUDY_TEST_POSTGRES says that there are servers already. The environment of every file has
 * UNDERSTUDY_TEST_FORM: short, ci or full, which says how much it tries.
 */
import { longestFirst, readDurations, saveDurations } from './test-runner/durations.ts';
import { makePlan, type Plan, PlanError, type PlannedFile } from './test-runner/plan.ts';
import { type FileResult, killRunningFiles, runFile } from './test-runner/run-file.ts';
import { addCounts, type Counts, closingLine, failedTests } from './test-runner/summary.ts';

interface Sandbox {
  env(): Readonly<Record<string, string>>;
  stop(): Promise<void>;
}

/** Two cores are what a small machine and a hosted build have. */
const unitJobs = 2;
/** Files with servers run two at a time, and those without beside them, one at a time. */
const stackJobs = 2;
const unitJobsBeside = 1;

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

function describe(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

/** Printed once more at the end of a long run. */
const failures: string[] = [];
const durations: Record<string, number> = {};

/** Runs at most `jobs` at a time; reports each file when it ends. */
async function runAll(
  files: readonly PlannedFile[],
  jobs: number,
  env: Readonly<Record<string, string>>,
): Promise<Counts> {
  let counts: Counts = { passed: 0, failed: 0, skipped: 0 };
  const waiting = [...longestFirst(files, readDurations())];
  const work = async (): Promise<void> => {
    for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) {
      if (interrupted) return;
      const result = await runFile(file, env);
      report(result);
      if (result.reason === null) durations[file.path] = Math.round(result.durationMs);
      counts = addCounts(counts, result.counts);
    }
  };
  await Promise.all(Array.from({ length: jobs }, work));
  return counts;
}

function report(result: FileResult): void {
  const { counts, reason } = result;
  const seconds = `${(result.durationMs / 1000).toFixed(1)} s`;
  const mark = reason === null ? '✓' : '✗';
  print(`${mark} ${result.path}  ${seconds}  ${closingLine(counts)}`);
  if (reason === null) return;
  print(`  ${reason}`);
  failures.push(`${result.path}: ${[reason, ...failedTests(result.output)].join('\n      ')}`);
  print(result.output.trimEnd().replace(/^/gm, '  | '));
}

async function openSandbox(): Promise<Sandbox> {
  if (process.env.UNDERSTUDY_TEST_POSTGRES !== undefined) {
    return { env: () => ({}), stop: () => Promise.resolve() };
  }
  // Loaded only here: unit tests need nothing of it.
  const { startSandbox } = await import('./sandbox/sandbox.ts');
  return startSandbox({
    postgres: 3,
    brokers: 1,
    registry: true,
    log: (line: string) => print(`sandbox: ${line}`),
  });
}

let sandbox: Promise<Sandbox> | null = null;
let interrupted = false;

async function stopSandbox(): Promise<void> {
  const opened = sandbox;
  sandbox = null;
  if (opened !== null) await (await opened).stop();
}

async function runStackFiles(files: readonly PlannedFile[], jobs: number): Promise<Counts> {
  sandbox = openSandbox();
  let env: Readonly<Record<string, string>>;
  try {
    env = (await sandbox).env();
  } catch (error) {
    print(`✗ the servers for ${files.length} files did not start\n${describe(error)}`);
    sandbox = null;
    return { passed: 0, failed: files.length, skipped: 0 };
  }
  const counts = await runAll(files, jobs, env);
  try {
    await stopSandbox();
    return counts;
  } catch (error) {
    print(`✗ the servers did not stop\n${describe(error)}`);
    return addCounts(counts, { passed: 0, failed: 1, skipped: 0 });
  }
}

async function runPlan(plan: Plan): Promise<Counts> {
  const light = plan.files.filter((file) => !file.needsStack);
  const heavy = plan.files.filter((file) => file.needsStack);
  const [lightJobs, heavyJobs] = [plan.jobs ?? unitJobs, plan.jobs ?? stackJobs];
  if (heavy.length === 0) return runAll(light, lightJobs, {});
  if (plan.jobs !== null) {
    return addCounts(await runAll(light, lightJobs, {}), await runStackFiles(heavy, heavyJobs));
  }
  // A file with servers waits for them half of its time: the others fill the processors up.
  const both = [runAll(light, unitJobsBeside, {}), runStackFiles(heavy, heavyJobs)] as const;
  const [lightCounts, heavyCounts] = await Promise.all(both);
  return addCounts(lightCounts, heavyCounts);
}

/** On a signal nothing may stay behind, the servers least of all. */
function endOnSignals(): void {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      interrupted = true;
      killRunningFiles();
      const exit = (): never => process.exit(signal === 'SIGINT' ? 130 : 143);
      stopSandbox().then(exit, (error: unknown) => {
        print(describe(error));
        exit();
      });
    });
  }
}

async function main(): Promise<void> {
  endOnSignals();
  let counts: Counts = { passed: 0, failed: 0, skipped: 0 };
  try {
    counts = await runPlan(makePlan(process.argv.slice(2)));
  } catch (error) {
    print(error instanceof PlanError ? error.message : describe(error));
    counts = addCounts(counts, { passed: 0, failed: 1, skipped: 0 });
  }
  saveDurations(durations);
  if (failures.length > 0) print(['\nwhat failed:', ...failures].join('\n  ✗ '));
  print(closingLine(counts));
  process.exitCode = counts.failed > 0 || counts.passed === 0 ? 1 : 0;
}

await main();
