/**
 * The output of the demo on stdout: headings, lines, and a block of lines that changes. On a
 * terminal it has colours, and the block is redrawn in place below all other lines; otherwise it is
 * plain lines without the block.
 */
import { styleText } from 'node:util';

export type Style = 'bold' | 'dim' | 'red' | 'green' | 'yellow' | 'cyan';

/** Only a part of a block line that wraps would be erased. */
const blockColumnsMin = 90;

const cursorUpAndErase = (lines: number): string => `\x1b[${lines}A\x1b[0J`;

export class Screen {
  /** Whether a block can be redrawn in place. */
  readonly redraws: boolean;
  readonly #out: NodeJS.WriteStream;
  readonly #hasColours: boolean;
  readonly #startedAtMs: number;
  readonly #nowMs: () => number;
  #block: readonly string[] = [];
  #silent = false;

  constructor(out: NodeJS.WriteStream, nowMs: () => number) {
    this.#out = out;
    this.#nowMs = nowMs;
    this.#startedAtMs = nowMs();
    const isTerminal = out.isTTY === true;
    this.#hasColours = isTerminal && !process.env['NO_COLOR'];
    this.redraws = isTerminal && out.columns >= blockColumnsMin;
  }

  /** From now on only the returned screen prints. */
  handOver(): Screen {
    this.#silent = true;
    return new Screen(this.#out, this.#nowMs);
  }

  elapsedMs(): number {
    return this.#nowMs() - this.#startedAtMs;
  }

  style(text: string, ...styles: readonly Style[]): string {
    return this.#hasColours ? styles.reduce((styled, one) => styleText(one, styled), text) : text;
  }

  /** A numbered act, explained in a few lines. */
  heading(title: string, explanation: readonly string[]): void {
    this.freeze();
    this.line('');
    this.line(`${this.style(title, 'bold', 'cyan')}  ${this.style(this.clock(), 'dim')}`);
    for (const text of explanation) this.line(this.style(text, 'dim'));
  }

  /** A command as a user would type it. */
  command(text: string): void {
    this.line(`  ${this.style('$', 'dim')} ${this.style(text, 'bold')}`);
  }

  line(text: string): void {
    if (this.#silent) return;
    const block = this.#block;
    this.#erase();
    this.#out.write(`${text}\n`);
    this.block(block);
  }

  /** Replaces the block, which is below all other lines. */
  block(lines: readonly string[]): void {
    if (!this.redraws || this.#silent) return;
    this.#erase();
    this.#out.write(lines.map((text) => `${text}\n`).join(''));
    this.#block = lines;
  }

  /** The present lines of the block stay on the screen. */
  freeze(): void {
    this.#block = [];
  }

  clock(): string {
    return `[${seconds(this.elapsedMs())}]`;
  }

  #erase(): void {
    if (this.#block.length > 0) this.#out.write(cursorUpAndErase(this.#block.length));
    this.#block = [];
  }
}

/** `12.3 s` */
export function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}

/** `12,345` */
export function grouped(count: number): string {
  return Math.round(count).toLocaleString('en-US');
}

/** `1 order`, `2 orders`; for words whose plural is an s. */
export function counted(count: number, word: string): string {
  return `${grouped(count)} ${word}${count === 1 ? '' : 's'}`;
}
