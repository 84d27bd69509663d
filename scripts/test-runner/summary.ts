/**
 * Judges one test file. Flows in: how its process ended and what it printed. Flows out: how many
 * tests passed, failed and were skipped, and the reason when the file failed. It promises that a
 * file counts as passed only when it ran at least one test, every test it announced passed, and the
 * process then ended by itself with exit code 0.
 *
 * The counts are compared because uvu ends with exit code 0 when a `before` hook throws: it reports
 * a total, passes none of it and forgets the error.
 */

export interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

export interface Summary {
  readonly total: number;
  readonly passed: number;
  readonly skipped: number;
}

export type Ending =
  | { readonly kind: 'exited'; readonly exitCode: number | null; readonly signal: string | null }
  | { readonly kind: 'timed-out'; readonly limitMs: number }
  | { readonly kind: 'leaked'; readonly graceMs: number }
  | { readonly kind: 'left-processes'; readonly processes: readonly string[] }
  | { readonly kind: 'not-started'; readonly reason: string };

export interface Verdict {
  readonly counts: Counts;
  /** Null when the file passed. */
  readonly reason: string | null;
}

const summaryPattern =
  /\n {2}Total: {5}(\d+)\n {2}Passed: {4}(\d+)\n {2}Skipped: {3}(\d+)\n {2}Duration: /g;

/** The last summary in what a file printed, or null while there is none. */
export function parseSummary(output: string): Summary | null {
  let last: Summary | null = null;
  for (const [, total, passed, skipped] of output.matchAll(summaryPattern)) {
    last = { total: Number(total), passed: Number(passed), skipped: Number(skipped) };
  }
  return last;
}

const failedTestPattern = /\n {3}FAIL {2}(.*".*")\n((?:(?! {4}at ).*\S.*\n){1,3})/g;

/** Each red test in what a file printed: suite, name and the first lines of the reason. */
export function failedTests(output: string): readonly string[] {
  return [...output.matchAll(failedTestPattern)].map(([, name, lines = '']) => {
    const reason = lines.trim().replaceAll(/\s*\n\s*/g, ' / ');
    return `${name}: ${reason}`;
  });
}

/** Why the ending alone fails the file, or null when it does not. */
function endingReason(ending: Ending, summary: Summary | null): string | null {
  switch (ending.kind) {
    case 'timed-out':
      return `did not end within ${ending.limitMs / 1000} s`;
    case 'leaked':
      return `did not exit within ${ending.graceMs / 1000} s after its tests: a handle is open`;
    case 'left-processes':
      return `left processes behind: ${ending.processes.join('; ')}`;
    case 'not-started':
      return ending.reason;
    case 'exited': {
      if (summary === null) return `ended without a summary (${describeExit(ending)})`;
      const redByTests = summary.passed < summary.total && ending.exitCode === 1;
      if (ending.exitCode === 0 || redByTests) return null;
      return `crashed after its tests (${describeExit(ending)})`;
    }
    default: {
      const never: never = ending;
      return String(never);
    }
  }
}

function describeExit(ending: { exitCode: number | null; signal: string | null }): string {
  return ending.signal === null ? `exit code ${ending.exitCode}` : `signal ${ending.signal}`;
}

export function judge(ending: Ending, summary: Summary | null): Verdict {
  const passed = summary?.passed ?? 0;
  const skipped = summary?.skipped ?? 0;
  const redTests = (summary?.total ?? 0) - passed;
  const reason = endingReason(ending, summary);
  if (reason !== null) return { counts: { passed, failed: redTests + 1, skipped }, reason };
  if (summary?.total === 0) {
    return { counts: { passed, failed: 1, skipped }, reason: 'holds no test' };
  }
  if (redTests === 0) return { counts: { passed, failed: 0, skipped }, reason: null };
  const hookThrew = ending.kind === 'exited' && ending.exitCode === 0;
  return {
    counts: { passed, failed: redTests, skipped },
    reason: hookThrew ? 'a hook threw and its tests did not run' : `${redTests} failed`,
  };
}

export function addCounts(a: Counts, b: Counts): Counts {
  return {
    passed: a.passed + b.passed,
    failed: a.failed + b.failed,
    skipped: a.skipped + b.skipped,
  };
}

/** The closing line of a run, the one that other programs read. */
export function closingLine(counts: Counts): string {
  const skipped = counts.skipped > 0 ? `, ${counts.skipped} skipped` : '';
  return `${counts.passed} passed, ${counts.failed} failed${skipped}`;
}
