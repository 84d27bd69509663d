/**
 * How long each test file took last time, so that the longest begin first: a long one that begins
 * last runs alone, with the other processor idle. Kept beside the sandbox's cache; without it, or
 * for a new file, the time limit is the estimate. Only the order depends on it.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { PlannedFile } from './plan.ts';

export type Durations = Readonly<Record<string, number>>;

const file = '.sandbox/test-durations.json';
/** A limit is some ten times what the file takes on an idle machine. */
const limitFactor = 10;

export function readDurations(path: string = file): Durations {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Durations;
  } catch {
    // There was no run yet, or it was ended while it wrote: the limits are good enough.
    return {};
  }
}

/** Adds what this run measured of the project's tests; other files keep what they had. */
export function saveDurations(measured: Durations, path: string = file): void {
  const own = Object.entries(measured).filter(([name]) => name.startsWith('test/'));
  if (own.length === 0) return;
  const all = { ...readDurations(path), ...Object.fromEntries(own) };
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `${JSON.stringify(all, null, 1)}\n`);
}

export function longestFirst(
  files: readonly PlannedFile[],
  durations: Durations,
): readonly PlannedFile[] {
  const estimate = ({ path, limitMs }: PlannedFile): number =>
    durations[path] ?? limitMs / limitFactor;
  return [...files].sort((a, b) => estimate(b) - estimate(a) || (a.path < b.path ? -1 : 1));
}
