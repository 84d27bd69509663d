/**
 * What the linter cannot see of the rooms of src/ (rooms.ts). Flows in: the text of every file of
 * src/; flows out: one line for each import that points upwards or leaves its room in another way,
 * for each file that is too long or too short, and exit code 1 where there is one.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { makesTheLog, type Room, rooms } from './rooms.ts';

/** With comments; functions and code lines are bounded by the linter. */
const linesMax = 400;
/** Below that a file is a crumb, which belongs to the file that it is read with. */
const linesMin = 25;
/** Shorter files, each with its reason. */
const mayBeShort: Readonly<Record<string, string>> = {};

interface Import {
  readonly from: string;
  readonly to: string;
  readonly onlyTypes: boolean;
}

const isIn = (file: string, path: string): boolean => file === path || file.startsWith(`${path}/`);

function roomOf(file: string): Room | undefined {
  const found = rooms.filter(({ path }) => isIn(file, path));
  return found.sort((a, b) => b.path.length - a.path.length)[0];
}

function importsOf(from: string, text: string): readonly Import[] {
  const statements = text.matchAll(/^(?:import|export)\s+(type\s+)?[^;]*?from\s+'(\.[^']+)'/gms);
  return [...statements].map(([, type, specifier = '']) => {
    const to = normalize(join(dirname(from), specifier));
    return { from, to, onlyTypes: type !== undefined };
  });
}

function wrongImport({ from, to, onlyTypes }: Import): string | null {
  const [room, target] = [roomOf(from), roomOf(to)];
  if (room === undefined || target === undefined) {
    return `src/${room === undefined ? from : to} is in no room: name it in scripts/lint/rooms.ts`;
  }
  if (to === 'logger.ts' && !onlyTypes && !makesTheLog.some((path) => isIn(from, path))) {
    return `src/${from} imports the logger: it is handed in, only its type may be imported`;
  }
  const allowed = [room.path, ...room.mayImport];
  if (room === target || allowed.some((path) => isIn(to, path))) return null;
  return `src/${from} imports src/${to}: ${room.path} may not import ${target.path}`;
}

/** A line that names a room below its own would allow a cycle. */
function wrongRoom({ path, mayImport }: Room, index: number): readonly string[] {
  const above = new Set(rooms.slice(0, index).map((room) => room.path));
  const known = [...above];
  const unknown = mayImport.filter((name) => !above.has(name) && !known.some((r) => isIn(r, name)));
  return unknown.map((name) => `scripts/lint/rooms.ts: ${name} does not stand above ${path}`);
}

function wrongLength(file: string, text: string): string | null {
  const lines = text.split('\n').length - 1;
  if (lines > linesMax) return `src/${file} has ${lines} lines, at most ${linesMax} are allowed`;
  if (lines >= linesMin || mayBeShort[file] !== undefined) return null;
  return `src/${file} has ${lines} lines: put it where it is read, or give a reason here`;
}

const names = readdirSync('src', { recursive: true, encoding: 'utf8' });
const files = names
  .filter((file) => file.endsWith('.ts'))
  .map((file) => ({ file, text: readFileSync(join('src', file), 'utf8') }));
const problems = [
  ...rooms.flatMap(wrongRoom),
  ...files.flatMap(({ file, text }) => [
    ...importsOf(file, text).map(wrongImport),
    wrongLength(file, text),
  ]),
].filter((problem) => problem !== null);
for (const problem of problems) process.stderr.write(`${problem}\n`);
if (problems.length > 0) process.exitCode = 1;
