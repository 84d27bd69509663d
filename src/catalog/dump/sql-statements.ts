/**
 * Takes a script of SQL apart into its statements, as psql does when it reads a dump. Flows in:
 * what pg_dump wrote; flows out: statements without their semicolons, byte for byte as they stood,
 * and without the comments before them. What is psql's and not SQL (`\restrict` and `\unrestrict`)
 * is left out; anything else that psql alone would understand, or that does not end, is refused.
 * Pure.
 *
 * As in psql, strings conform to the standard (a backslash is one, except in E''), and a body of
 * BEGIN ATOMIC … END is looked for in statements that begin as those of routines do.
 */
import { unreadableDump } from '../../errors/schema-dump.ts';
import type { UnderstudyError } from '../../errors/understudy-error.ts';

export function splitStatements(script: string): string[] {
  return new Splitter(script).run();
}

const identifierStart = /[A-Za-z_\u0080-\uffff]/;
const wordPattern = /[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*/y;
/** A number takes letters behind it along: `1e5`, and 0x1F since version 16. */
const numberPattern = /[0-9][\w.\u0080-\uffff]*/y;
const dollarPattern = /\$(?:[A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*)?\$/y;
const atomicPattern = /\s+atomic\b/iy;
/** What psql is told before and after a dump, so that nothing inside of it can talk to psql. */
const restrictPattern = /\\(?:un)?restrict [^\n]*(?:\n|$)/y;

/** The words that a statement has to begin with for BEGIN to open a body. */
const routineBegin = /^create (?:or replace )?(?:function|procedure)\b/;
/** `create or replace function` and no more is looked at. */
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
      // As psql does, so that one too many cannot hide the end of all that follows.
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
    // A doubled quote ends one name here and begins the next: where it all ends is the same.
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

/** Enough to find the place; a definition may hold what is nobody's business. */
const shownCharsMax = 60;

function unreadable(text: string, at: number, what: string): UnderstudyError {
  const line = text.slice(0, at).split('\n').length;
  const shown = text.slice(at, at + shownCharsMax).split('\n', 1)[0] ?? '';
  return unreadableDump(line, what, shown);
}
