/**
 * The rules of the rooms of src/ that Biome cannot express. The table of rooms and the text of
 * every file flow in; one line for each broken rule flows out: an import that points upwards, a
 * table that would allow a cycle, an import of the logger, a file that is too long or too short.
 * Pure.
 */
import { importsOf, type SourceFile, type SourceImport } from './source-file.ts';

export interface Room {
  /** A folder or a file below src/. */
  readonly path: string;
  /** Rooms, each with everything inside it. */
  readonly mayImport: readonly string[];
}

export interface RoomRules {
  /** From the lowest to the highest: a room may name only rooms above its line. */
  readonly rooms: readonly Room[];
  /** The rooms that may import the logger itself; others import its type. */
  readonly createTheLog: readonly string[];
  /** Files below `linesMin`, each with its reason. */
  readonly mayBeShort: Readonly<Record<string, string>>;
}

/** With comments; Biome bounds functions and lines of code. */
export const linesMax = 400;
/** A shorter file belongs to the file that it is read with. */
export const linesMin = 25;

export function judgeRooms(files: readonly SourceFile[], rules: RoomRules): readonly string[] {
  const problems = files
    .filter(({ file }) => file.startsWith('src/'))
    .flatMap((file) => [
      ...importsOf(file).map((one) => judgeImport(one, rules)),
      judgeLength(file, rules),
    ]);
  const table = rules.rooms.flatMap((room, index) => judgeRoom(room, index, rules.rooms));
  return [...table, ...problems.filter((problem) => problem !== null)];
}

function isIn(path: string, room: string): boolean {
  return path === room || path.startsWith(`${room}/`);
}

/** A file belongs to the longest path that contains it. */
function roomOf(path: string, rooms: readonly Room[]): Room | undefined {
  const found = rooms.filter((room) => isIn(path, room.path));
  return found.sort((a, b) => b.path.length - a.path.length)[0];
}

function judgeImport({ from, to, onlyTypes }: SourceImport, rules: RoomRules): string | null {
  const { rooms, createTheLog } = rules;
  const [own, other] = [from.replace('src/', ''), to.replace('src/', '')];
  const [room, target] = [roomOf(own, rooms), roomOf(other, rooms)];
  if (room === undefined || target === undefined) {
    return `${room === undefined ? from : to} is in no room: name it in scripts/lint/rooms.ts`;
  }
  if (other === 'logger.ts' && !onlyTypes && !createTheLog.some((path) => isIn(own, path))) {
    return `${from} imports the logger: it is handed in, only its type may be imported`;
  }
  const isInner = isIn(target.path, room.path) && rooms.indexOf(target) < rooms.indexOf(room);
  const isNamed = room.mayImport.some((path) => isIn(other, path));
  if (room === target || isInner || isNamed) return null;
  return `${from} imports ${to}: ${room.path} may not import ${target.path}`;
}

/** A line that names a room below its own would allow a cycle. */
function judgeRoom(
  { path, mayImport }: Room,
  index: number,
  rooms: readonly Room[],
): readonly string[] {
  const above = rooms.slice(0, index).map((room) => room.path);
  const below = rooms.slice(index + 1).map((room) => room.path);
  const wrong = mayImport.filter((name) => {
    const isKnown = above.some((room) => isIn(name, room) || isIn(room, name));
    return !isKnown || below.some((room) => isIn(room, name));
  });
  return wrong.map((name) => `scripts/lint/rooms.ts: ${name} is not above ${path}`);
}

function judgeLength({ file, text }: SourceFile, { mayBeShort }: RoomRules): string | null {
  const lines = text.split('\n').length - 1;
  if (lines > linesMax) return `${file} has ${lines} lines, at most ${linesMax} are allowed`;
  if (lines >= linesMin || mayBeShort[file.replace('src/', '')] !== undefined) return null;
  return `${file} has ${lines} lines: move it to where it is read, or give a reason in rooms.ts`;
}
