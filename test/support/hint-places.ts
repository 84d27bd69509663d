/**
 * The commands that hints name, read from the sources: texts of string literals by the declaration
 * that holds them, with `…` for what is filled in at run time. A command in a hint is between
 * backquotes, so that people can copy it and a test can run it; `unmarked` finds the others.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface Place {
  /** The top-level function, constant or class. */
  readonly name: string;
  readonly texts: readonly string[];
}

const filledIn = '…';

/** The declarations of a file, each with its texts. Comments are left out. */
export function placesOf(source: string): readonly Place[] {
  const code = withoutComments(source);
  const parts = code.split(/^(?=(?:export )?(?:async )?(?:function|const|class) )/m);
  return parts.flatMap((part) => {
    const name = /^(?:export )?(?:async )?(?:function|const|class) (\w+)/.exec(part)?.[1];
    return name === undefined ? [] : [{ name, texts: textsOf(part) }];
  });
}

/**
 * What is between backquotes and has an argument, or is filled in as a whole: a lone word is a
 * name, not a command.
 */
export function commandsIn(text: string): readonly string[] {
  return [...text.matchAll(/`([^`]*\s[^`]*|…)`/g)].map((found) => found[1] ?? '');
}

const verbs =
  'check|init|run|status|points?|wait|verify|resnapshot|failover|detach|rebuild|repair-damage|' +
  'destroy|--help';
const startOfCommand = new RegExp(
  `\\bunderstudy (?:${verbs})\\b|\\bkafka-\\w+(?:\\.sh)? --|\\bpg_dump --|\\bpsql ` +
    '-|\\bPGOPTIONS=|' +
    '\\b(?:CREATE|ALTER|DROP|GRANT|SELECT|UPDATE|DELETE|TRUNCATE|SET) (?:[A-Z]{2,}|pg_|…|setval)',
);

/** The beginning of a command that is not between backquotes; null where there is none. */
export function unmarked(text: string): string | null {
  const found = startOfCommand.exec(text.replace(/`[^`]*`/g, '``'));
  return found === null ? null : found[0];
}

/** A string in `'`, `"` or `` ` ``; texts joined by + are one. */
function textsOf(code: string): readonly string[] {
  const texts: string[] = [];
  let endOfLast = -1;
  for (let at = 0; at < code.length; at += 1) {
    const quote = code[at];
    if (quote === '/' && /[(,=:[!&|?{};\n]\s*$/.test(code.slice(Math.max(0, at - 20), at))) {
      at = endOfPattern(code, at);
      continue;
    }
    if (quote !== "'" && quote !== '"' && quote !== '`') continue;
    // Within a pattern or a comment at the end of a line, a quote begins no string.
    if (quote !== '`' && !isClosedInLine(code, at)) continue;
    const { text, end, inner } = literalAt(code, at);
    const isContinued = endOfLast >= 0 && /^\s*\+\s*$/.test(code.slice(endOfLast, at));
    const before = isContinued ? (texts.pop() ?? '') : '';
    texts.push(...inner, before + text);
    [at, endOfLast] = [end - 1, end];
  }
  return texts;
}

function isClosedInLine(code: string, start: number): boolean {
  const line = code.slice(start + 1).split('\n', 1)[0] ?? '';
  return line.replace(/\\./g, '').includes(code[start] ?? '');
}

interface Literal {
  readonly text: string;
  /** Behind its closing quote. */
  readonly end: number;
  /** Texts within its `${…}`. */
  readonly inner: readonly string[];
}

function literalAt(code: string, start: number): Literal {
  const quote = code[start];
  const inner: string[] = [];
  let text = '';
  for (let at = start + 1; at < code.length; at += 1) {
    if (code[at] === quote) return { text, end: at + 1, inner };
    if (code[at] === '\\') {
      at += 1;
      text += code[at] === 'n' ? '\n' : code[at];
    } else if (quote === '`' && code.startsWith('${', at)) {
      const end = endOfExpression(code, at + 2);
      inner.push(...textsOf(code.slice(at + 2, end)));
      text += filledIn;
      at = end;
    } else {
      text += code[at];
    }
  }
  throw new Error(`a string has no end: ${code.slice(start, start + 60)}`);
}

/** The position of the brace that ends an expression within a template. */
function endOfExpression(code: string, start: number): number {
  let depth = 0;
  for (let at = start; at < code.length; at += 1) {
    const character = code[at];
    if (character === "'" || character === '"' || character === '`') {
      at = literalAt(code, at).end - 1;
    } else if (character === '{') {
      depth += 1;
    } else if (character === '}') {
      if (depth === 0) return at;
      depth -= 1;
    }
  }
  throw new Error('an expression in a template has no end');
}

/** The position of the slash that ends a regular expression. */
function endOfPattern(code: string, start: number): number {
  let isClass = false;
  for (let at = start + 1; at < code.length && code[at] !== '\n'; at += 1) {
    if (code[at] === '\\') at += 1;
    else if (code[at] === '[') isClass = true;
    else if (code[at] === ']') isClass = false;
    else if (code[at] === '/' && !isClass) return at;
  }
  return start;
}

function withoutComments(source: string): string {
  return source.replace(/\/\*[\s\S]*?\*\//g, '').replace(/^\s*\/\/.*$/gm, '');
}

/** A command of a hint, and the place that it is written at. */
export interface HintCommand {
  readonly file: string;
  readonly place: string;
  /** With `…` for what is filled in. */
  readonly command: string;
  /** The text that has it. */
  readonly text: string;
}

/** All of `src/`. */
export function hintCommands(): readonly HintCommand[] {
  const files = readdirSync('src', { recursive: true, encoding: 'utf8' });
  return files
    .filter((file) => file.endsWith('.ts'))
    .flatMap((file) => {
      const places = placesOf(readFileSync(join('src', file), 'utf8'));
      return places.flatMap(({ name, texts }) => {
        return texts.flatMap((text) => {
          return commandsIn(text).map((command) => ({ file, place: name, command, text }));
        });
      });
    });
}

/** Whether it was printed: the command, in a hint that has all of the text around it. */
export function isPrinted({ command, text }: HintCommand, printed: string, hint: string): boolean {
  return (
    new RegExp(`^${pattern(command)}$`, 's').test(printed) &&
    new RegExp(pattern(text), 's').test(hint)
  );
}

function pattern(text: string): string {
  const parts = text.split(filledIn).map((part) => part.replace(/[\\^$.|?+*()[\]{}]/g, '\\$&'));
  return parts.join('.*');
}

/**
 * A marker names a place, or `place: word` one of its commands by a word of it. What is filled in
 * as a whole has its words at run time only.
 */
export function isMarked({ place, command }: HintCommand, marker: string): boolean {
  const [named = '', word] = marker.split(': ');
  const isWord = word === undefined || command === filledIn || command.includes(word);
  return named === place && isWord;
}
