/**
 * Shows the progress of a long command on stderr. A caller hands in lines as often as it likes; on
 * a terminal each replaces the one before, elsewhere one is written every few seconds, so that a
 * log stays readable.
 */

interface ProgressLineParts {
  readonly write: (text: string) => void;
  /** The width of the terminal; null where stderr is none. */
  readonly columns: () => number | null;
  readonly nowMs: () => number;
}

const everyMs = 5_000;
const onTerminalEveryMs = 200;
const clearLine = '\u001b[K';

export class ProgressLine {
  readonly #parts: ProgressLineParts;
  #shownMs: number;
  #isOnScreen = false;

  constructor(parts: ProgressLineParts) {
    this.#parts = parts;
    this.#shownMs = parts.nowMs();
  }

  show(line: string): void {
    const { write, columns, nowMs } = this.#parts;
    const width = columns();
    const now = nowMs();
    if (now - this.#shownMs < (width === null ? everyMs : onTerminalEveryMs)) return;
    this.#shownMs = now;
    if (width === null) {
      write(`${line}\n`);
      return;
    }
    // The cursor returns to the margin, where the next text begins.
    write(`${line.slice(0, width - 1)}${clearLine}\r`);
    this.#isOnScreen = true;
  }

  /** Before anything else is written, and at the end. */
  clear(): void {
    if (this.#isOnScreen) this.#parts.write(clearLine);
    this.#isOnScreen = false;
  }
}
