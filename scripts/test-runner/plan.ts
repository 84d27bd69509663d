/**
 * Decides what to run. Flows in: the words of the command line and the test folders. Flows out: the
 * list of files, each with its time limit and with whether it needs the stack. It promises that a
 * name which matches no file is an error, never an empty run.
 */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join, relative, sep } from 'node:path';

export interface PlannedFile {
  /** Relative to the working folder, with forward slashes. */
  readonly path: string;
  readonly limitMs: number;
  /** Runs against Postgres, Kafka and a registry. */
  readonly needsStack: boolean;
  /** How long it may take its time; a file that is named has more to try than in the short form. */
  readonly form: Form;
}

export interface Plan {
  readonly files: readonly PlannedFile[];
  readonly jobs: number | null;
}

/** The user's mistake on the command line. */
export class PlanError extends Error {}

const defaultFolders = ['test/unit', 'test/golden', 'test/model', 'test/integration', 'test/fault'];
const stackFolders = new Set(['integration', 'fault']);

/** A unit test that needs longer on a busy machine waits for something that it should be handed. */
const unitLimitMs = 120_000;
/** Enough for a server start, a bootstrap and a promotion, each with its own shorter limit. */
const stackLimitMs = 240_000;
/** A file that needs more should be two files: a hang must not eat the whole run. */
const longestLimitMs = 1_800_000;
/** A limit precedes the code, at the latest after the file's first paragraph. */
const limitCommentLines = 20;
const limitPattern = /^\/\/ time-limit: (\d+)s\s*$/m;
/** The shortest form in which a file runs that is not named, and why not in a shorter one. */
const formPattern = /^\/\/ runs: (ci|full)(?:, .*)?\s*$/m;
const forms = ['short', 'ci', 'full'] as const;
export type Form = (typeof forms)[number];

const usage = 'usage: run-tests.ts [--ci | --full] [--jobs N] [file | folder | glob]…';

export function makePlan(words: readonly string[]): Plan {
  const names: string[] = [];
  let jobs: number | null = null;
  let form: Form = 'short';
  for (let index = 0; index < words.length; index += 1) {
    const word = words[index] ?? '';
    if (word === '--jobs') {
      index += 1;
      jobs = parseJobs(words[index]);
    } else if (word === '--ci' || word === '--full') {
      form = word === '--ci' ? 'ci' : 'full';
    } else if (word.startsWith('-')) {
      throw new PlanError(`unknown option ${word}\n${usage}`);
    } else {
      names.push(word);
    }
  }
  const found = names.length > 0 ? names.flatMap(filesOf) : defaultFiles();
  // A file that is named runs in any case.
  const named = new Set(names.map((name) => toSlashes(relative('.', name))));
  const runs = (path: string): boolean => forms.indexOf(formOf(path)) <= forms.indexOf(form);
  const paths = new Set(found.filter((path) => named.has(path) || runs(path)));
  const formFor = (path: string): Form => (form === 'short' && named.has(path) ? 'ci' : form);
  const files = [...paths].map((path) => planFile(path, formFor(path)));
  return { files: files.sort(byCost), jobs };
}

function parseJobs(word: string | undefined): number {
  if (word === undefined || !/^[1-9][0-9]?$/.test(word)) {
    throw new PlanError(`--jobs takes a number from 1 to 99\n${usage}`);
  }
  return Number(word);
}

/** Files without servers come first: they are quick, and their failures explain later ones. */
function byCost(a: PlannedFile, b: PlannedFile): number {
  if (a.needsStack !== b.needsStack) return a.needsStack ? 1 : -1;
  return a.path < b.path ? -1 : 1;
}

function defaultFiles(): readonly string[] {
  const found = defaultFolders.filter((name) => existsSync(name)).flatMap(testFilesBelow);
  if (found.length === 0) throw new PlanError('there is no test file in the usual folders');
  return found;
}

function filesOf(name: string): readonly string[] {
  const found = name.includes('*')
    ? testFilesBelow('test').filter((path) => globPattern(name).test(path))
    : namedFiles(name);
  if (found.length === 0) throw new PlanError(`no test file matches ${name}`);
  return found;
}

function namedFiles(name: string): readonly string[] {
  if (!existsSync(name)) return [];
  const path = toSlashes(relative('.', name));
  return statSync(name).isDirectory() ? testFilesBelow(path) : [path];
}

function testFilesBelow(folder: string): readonly string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.test.ts'))
    .map((name) => toSlashes(join(folder, name)));
}

function toSlashes(path: string): string {
  return path.split(sep).join('/');
}

/** `*` matches a part of a name, `**` any number of folders. */
function globPattern(glob: string): RegExp {
  const source = glob
    .replace(/[.+?^${}()|[\]\\]/g, '\\$&')
    .split('**/')
    .map((part) => part.replaceAll('**', '.*').replaceAll(/(?<!\.)\*/g, '[^/]*'))
    .join('(?:.*/)?');
  return new RegExp(`^${source}$`);
}

function headOf(path: string): string {
  return readFileSync(path, 'utf8').split('\n', limitCommentLines).join('\n');
}

function formOf(path: string): Form {
  const [, form = 'short'] = formPattern.exec(headOf(path)) ?? [];
  return form as Form;
}

function planFile(path: string, form: Form): PlannedFile {
  const needsStack = path.split('/').some((part) => stackFolders.has(part));
  const seconds = limitPattern.exec(headOf(path))?.[1];
  const usualMs = needsStack ? stackLimitMs : unitLimitMs;
  const limitMs = seconds === undefined ? usualMs : Number(seconds) * 1000;
  if (limitMs < 1000 || limitMs > longestLimitMs) {
    throw new PlanError(`${path}: a time limit lies between 1 s and ${longestLimitMs / 1000} s`);
  }
  return { path, limitMs, needsStack, form };
}
