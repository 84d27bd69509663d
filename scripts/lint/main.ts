/**
 * Runs the rules of this folder on the project: reads the TypeScript files, prints one line for
 * each broken rule, and exits with 1 where there is one.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { judgeRooms } from './judge-rooms.ts';
import { judgeErrors, judgeText } from './judge-text.ts';
import { createTheLog, mayBeShort, rooms } from './rooms.ts';
import type { SourceFile } from './source-file.ts';

const folders = ['src', 'test', 'scripts', 'bench'].filter((folder) => existsSync(folder));
const files = folders.flatMap((folder) =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name): SourceFile => {
      const file = join(folder, name);
      return { file, text: readFileSync(file, 'utf8') };
    }),
);
const problems = [
  ...judgeRooms(files, { rooms, createTheLog, mayBeShort }),
  ...judgeErrors(files),
  ...judgeText(files),
];
for (const problem of problems) process.stderr.write(`${problem}\n`);
if (problems.length > 0) process.exitCode = 1;
