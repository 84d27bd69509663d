/**
 * Splits a script of SQL into its statements, as psql does when it reads a dump. It takes the
 * output of pg_dump, and returns the statements byte for byte, without their semicolons and the
 * comments before them. The psql commands `\restrict` and `\unrestrict` are removed; any other psql
 * command, and a statement that does not end, is refused. Pure.
 *
 * As in psql, strings conform to the standard (a backslash is a character, except in E''), and only
 * statements that begin as those of routines do can have a body of BEGIN ATOMIC … END.
 */
import { unreadableDump } from '../../errors/schema-dump.ts';
import type { UnderstudyError } from '../../errors/understudy-error.ts';

export function splitStatements(script: string): string[] {
  return new Splitter(script).run();
}

const identifierStart = /[A-Za-z_\u0080-\uffff]/;
const wordPattern = /[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*/y;
/** A number includes letters that follow it: `1e5`, and 0x1F since version 16. */
const numberPattern = /[0-9][\w.\u0080-\uffff]*/y;
const dollarPattern = /\$(?:[A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*)?\$/y;
const atomicPattern = /\s+atomic\b/iy;
/** Written before and after a dump, so that no text inside of it can be a psql command. */
const restrictPattern = /\\(?:un)?restrict [^\n]*(?:\n|$)/y;

/** How a statement begins in which BEGIN opens a body. */
const routineBegin = /^create (?:or replace )?(?:function|procedure)\b/;
/** `create or replace function` is the longest beginning. */
const leadingWordsMax = 4;

class Splitter {
  readonly #text: string;
  readonly #statements: string[] = [];
  #at = 0;
  /** Where the statement begins; null before its first token. */
  #start: number | null = null;
  #parentheses = 0;
  #bodies = 0;
  #words: string[] = [];

  constructor(text: string) {
    this.#text = text;
  }

  run(): string[] {
    while (this.#at < this.#text.length) this.#token();
    if (this.#start !== null) throw unreadable(this.#text, this.#start, 'does not end');
    return this.#statements;
  }

  #token(): void {
    const text = this.#text;
    const char = text[this.#at] ?? '';
    const next = text[this.#at + 1] ?? '';
    if (/\s/.test(char)) this.#at += 1;
    else if (char === '-' && next === '-') this.#lineComment();
    else if (char === '/' && next === '*') this.#blockComment();
    else if (char === '\\') this.#backslash();
    else if (char === ';' && this.#parentheses === 0 && this.#bodies === 0) this.#end();
    else {
      this.#start ??= this.#at;
      this.#sqlToken(char);
    }
  }

  #sqlToken(char: string): void {
    if (char === "'") this.#string(false);
    else if (char === '"') this.#quotedName();
    else if (char === '$') this.#dollar();
    else if (identifierStart.test(char)) this.#word();
    else if (char >= '0' && char <= '9') this.#skip(numberPattern);
    else {
      if (char === '(') this.#parentheses += 1;
      // As in psql, so that an unmatched one cannot hide the ends of all later statements.
      if (char === ')') this.#parentheses = Math.max(0, this.#parentheses - 1);
      this.#at += 1;
    }
  }

  #end(): void {
    if (this.#start !== null) {
      this.#statements.push(this.#text.slice(this.#start, this.#at).trimEnd());
    }
    this.#at += 1;
    this.#start = null;
    this.#words = [];
  }

  #lineComment(): void {
    const end = this.#text.indexOf('\n', this.#at);
    this.#at = end < 0 ? this.#text.length : end + 1;
  }

  /** They nest. */
  #blockComment(): void {
    const begin = this.#at;
    let depth = 0;
    const mark = /\/\*|\*\//g;
    mark.lastIndex = begin;
    for (let found = mark.exec(this.#text); found !== null; found = mark.exec(this.#text)) {
      depth += found[0] === '/*' ? 1 : -1;
      this.#at = mark.lastIndex;
      if (depth === 0) return;
    }
    throw unreadable(this.#text, begin, 'is a comment that does not end');
  }

  #backslash(): void {
    const atLineBegin = this.#at === 0 || this.#text[this.#at - 1] === '\n';
    if (this.#start === null && atLineBegin && this.#skip(restrictPattern)) return;
    throw unreadable(this.#text, this.#at, 'is a command of psql');
  }

  #string(escapes: boolean): void {
    const begin = this.#at;
    const mark = escapes ? /\\.|''|'/gs : /''|'/g;
    mark.lastIndex = begin + 1;
    for (let found = mark.exec(this.#text); found !== null; found = mark.exec(this.#text)) {
      if (found[0] !== "'") continue;
      this.#at = mark.lastIndex;
      return;
    }
    throw unreadable(this.#text, begin, 'is a string that does not end');
  }

  #quotedName(): void {
    const end = this.#text.indexOf('"', this.#at + 1);
    if (end < 0) throw unreadable(this.#text, this.#at, 'is a name that does not end');
    // A doubled quote ends one name here and begins the next: the end of the whole is the same.
    this.#at = end + 1;
  }

  #dollar(): void {
    dollarPattern.lastIndex = this.#at;
    const [tag] = dollarPattern.exec(this.#text) ?? [];
    if (tag === undefined) {
      this.#at += 1;
      return;
    }
    const end = this.#text.indexOf(tag, this.#at + tag.length);
    if (end < 0) throw unreadable(this.#text, this.#at, 'is a string that does not end');
    this.#at = end + tag.length;
  }

  #word(): void {
    const begin = this.#at;
    this.#skip(wordPattern);
    const word = this.#text.slice(begin, this.#at).toLowerCase();
    if (word === 'e' && this.#text[this.#at] === "'") {
      this.#string(true);
      return;
    }
    if (this.#words.length < leadingWordsMax) this.#words.push(word);
    if (this.#parentheses > 0 || !routineBegin.test(this.#words.join(' '))) return;
    // Bodies do not nest, and BEGIN is a name as well; CASE and END never are, unless quoted.
    if (this.#bodies === 0) this.#bodies = word === 'begin' && this.#skip(atomicPattern) ? 1 : 0;
    // rule: case-has-an-end
    else if (word === 'case') this.#bodies += 1;
    else if (word === 'end') this.#bodies -= 1;
  }

  #skip(pattern: RegExp): boolean {
    pattern.lastIndex = this.#at;
    const [found] = pattern.exec(this.#text) ?? [];
    if (found === undefined) return false;
    this.#at += found.length;
    return true;
  }
}

/** Enough to find the line; a definition may hold confidential text. */
const shownCharsMax = 60;

function unreadable(text: string, at: number, what: string): UnderstudyError {
  const line = text.slice(0, at).split('\n').length;
  const shown = text.slice(at, at + shownCharsMax).split('\n', 1)[0] ?? '';
  return unreadableDump(line, what, shown);
}
