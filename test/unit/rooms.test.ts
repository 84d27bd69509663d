/**
 * The rules of scripts/lint on made-up trees: each rule reports what breaks it, in one line that
 * names the file, and nothing else. A tree without a mistake has no line.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { judgeRooms, linesMax, linesMin, type Room } from '../../scripts/lint/judge-rooms.ts';
import { judgeErrors, judgeText } from '../../scripts/lint/judge-text.ts';
import { createTheLog, mayBeShort, rooms } from '../../scripts/lint/rooms.ts';
import { exportsOf, importsOf, type SourceFile } from '../../scripts/lint/source-file.ts';

/** A file of the least length, with these lines. */
function file(path: string, ...lines: readonly string[]): SourceFile {
  const padding = Array.from({ length: linesMin + 1 }, () => '');
  return { file: path, text: [...lines, ...padding].join('\n') };
}

const table: readonly Room[] = [
  { path: 'logger.ts', mayImport: [] },
  { path: 'change', mayImport: [] },
  { path: 'topic/kafka', mayImport: ['change'] },
  { path: 'topic', mayImport: ['change'] },
  { path: 'topic/dump', mayImport: ['topic'] },
  { path: 'leader', mayImport: ['change', 'topic', 'logger.ts'] },
  { path: 'commands', mayImport: ['change', 'topic', 'leader', 'logger.ts'] },
];

const clean: readonly SourceFile[] = [
  file('src/logger.ts'),
  file('src/change/lsn.ts', 'export type Lsn = bigint;'),
  file('src/topic/kafka/wire.ts', "import type { Lsn } from '../../change/lsn.ts';"),
  file('src/topic/log.ts', "import './kafka/wire.ts';"),
  file('src/topic/dump/dump.ts', "import '../log.ts';"),
  file(
    'src/leader/leader.ts',
    "import '../topic/kafka/wire.ts';",
    "import type { Logger } from '../logger.ts';",
  ),
  file('src/commands/run.ts', "import { createLog } from '../logger.ts';"),
];

function judged(...more: readonly SourceFile[]): readonly string[] {
  const rules = { rooms: table, createTheLog: ['commands'], mayBeShort: {} };
  return judgeRooms([...clean, ...more], rules);
}

test('a tree whose imports point downwards has no problem', () => {
  assert.equal(judged(), []);
});

test('an upward import is reported, of a value, of a type, on several lines, at run time', () => {
  const imports = [
    "import { run } from '../commands/run.ts';",
    "import type { Run } from '../commands/run.ts';",
    "import {\n  run,\n} from '../commands/run.ts';",
    "export { run } from '../commands/run.ts';",
    "import '../commands/run.ts';",
    "const { run } = await import('../commands/run.ts');",
  ];
  for (const line of imports) {
    assert.equal(
      judged(file('src/leader/stream.ts', line)),
      ['src/leader/stream.ts imports src/commands/run.ts: leader may not import commands'],
      line,
    );
  }
});

test('a room imports the rooms inside it that are above it, and no others', () => {
  assert.equal(judged(file('src/topic/a.ts', "import './dump/dump.ts';")), [
    'src/topic/a.ts imports src/topic/dump/dump.ts: topic may not import topic/dump',
  ]);
  assert.equal(judged(file('src/topic/kafka/a.ts', "import '../log.ts';")), [
    'src/topic/kafka/a.ts imports src/topic/log.ts: topic/kafka may not import topic',
  ]);
});

test('a folder whose name only begins like a room is not in it', () => {
  assert.equal(judged(file('src/leaders/a.ts', "import '../change/lsn.ts';")), [
    'src/leaders/a.ts is in no room: name it in scripts/lint/rooms.ts',
  ]);
});

test('the logger is imported as a type, but for the rooms that create the log', () => {
  assert.equal(judged(file('src/leader/a.ts', "import { createLog } from '../logger.ts';")), [
    'src/leader/a.ts imports the logger: it is handed in, only its type may be imported',
  ]);
});

test('a table that would allow a cycle is reported', () => {
  const cycle: readonly Room[] = [
    { path: 'leader', mayImport: ['follower'] },
    { path: 'follower', mayImport: ['leader'] },
    { path: 'self', mayImport: ['self'] },
    { path: 'fleet/node', mayImport: [] },
    { path: 'agent', mayImport: ['fleet'] },
    { path: 'fleet/status', mayImport: [] },
  ];
  assert.equal(judgeRooms([], { rooms: cycle, createTheLog: [], mayBeShort: {} }), [
    'scripts/lint/rooms.ts: follower is not above leader',
    'scripts/lint/rooms.ts: self is not above self',
    'scripts/lint/rooms.ts: fleet is not above agent',
  ]);
});

test('the table of the project allows no cycle', () => {
  assert.equal(judgeRooms([], { rooms, createTheLog, mayBeShort }), []);
});

test('a crumb and an overlong file are reported, a crumb with a reason is not', () => {
  const lines = (count: number): string => '\n'.repeat(count);
  const rules = { rooms: table, createTheLog: [], mayBeShort: { 'change/bug.ts': 'a reason' } };
  const files = [
    { file: 'src/change/least.ts', text: lines(linesMin) },
    { file: 'src/change/crumb.ts', text: lines(linesMin - 1) },
    { file: 'src/change/bug.ts', text: lines(1) },
    { file: 'src/change/most.ts', text: lines(linesMax) },
    { file: 'src/change/overlong.ts', text: lines(linesMax + 1) },
    { file: 'test/unit/short.test.ts', text: lines(1) },
  ];
  assert.equal(judgeRooms(files, rules), [
    `src/change/crumb.ts has ${linesMin - 1} lines: move it to where it is read, or give a reason` +
      ' in rooms.ts',
    `src/change/overlong.ts has ${linesMax + 1} lines, at most ${linesMax} are allowed`,
  ]);
});

test('an error that is created outside src/errors is reported', () => {
  const text = "throw new UnderstudyError('BUG', 'x', 'y');";
  const files = [file('src/errors/bug.ts', text), file('src/leader/a.ts', '', text)];
  assert.equal(judgeErrors([...files, file('test/unit/a.test.ts', text)]), [
    'src/leader/a.ts:2 creates an error: call or add a factory of src/errors',
  ]);
});

test('a swallowed error is reported, unless a comment says where it is handled', () => {
  const swallowed = ['lost.catch(() => undefined);', 'lost.catch(() => {});'];
  for (const text of swallowed) {
    assert.equal(judgeText([file('src/leader/a.ts', '', text)]), [
      'src/leader/a.ts:2 swallows an error: a comment has to say where it is handled',
    ]);
    const explained = [
      file('src/leader/b.ts', '// The session that broke reports it.', text),
      file('src/leader/c.ts', '/** The session that broke reports it. */', text),
      file('src/leader/d.ts', `${text} // The session that broke reports it.`),
    ];
    assert.equal(judgeText(explained), []);
  }
});

test('a name that two files export is reported', () => {
  const files = [
    file('src/leader/a.ts', 'export function statusOf(): void {}'),
    file('src/follower/a.ts', 'export const statusOf = 1;'),
    file('src/b.ts', "import { statusOf } from './leader/a.ts';"),
    file('src/c.ts', "import { statusOf } from './follower/a.ts';"),
  ];
  assert.equal(judgeText(files), [
    'statusOf is exported by src/leader/a.ts and src/follower/a.ts: rename one',
  ]);
});

test('an export that no other file imports is reported, whatever kind it is', () => {
  const names = ['a', 'b', 'C', 'D', 'E', 'f', 'G'];
  const exporting = file(
    'src/leader/a.ts',
    'export function a(): void {}',
    'export async function b(): Promise<void> {}',
    'export class C {}',
    'export interface D {}',
    'export type E = string;',
    'export const f = 1;',
    'export abstract class G {}',
  );
  assert.equal(exportsOf(exporting), names);
  assert.equal(
    judgeText([exporting, file('src/leader/b.ts', "import { a, type C as Z } from './a.ts';")]),
    names
      .filter((name) => name !== 'a' && name !== 'C')
      .map((name) => `src/leader/a.ts exports ${name}, which no other file imports`),
  );
  for (const line of [
    `import { ${names.join(', ')} } from '../../src/leader/a.ts';`,
    `export { ${names.join(', ')} } from '../../src/leader/a.ts';`,
    "import * as everything from '../../src/leader/a.ts';",
    "const { a } = await import('../../src/leader/a.ts');",
  ]) {
    assert.equal(judgeText([exporting, file('test/unit/a.test.ts', line)]), [], line);
  }
});

test('imports of packages are not of the project', () => {
  const text = "import { Client } from 'pg';\nimport { join } from 'node:path';";
  assert.equal(importsOf({ file: 'src/a.ts', text }), []);
});

test.run();
