/**
 * Shows how far a long command is. Lines flow in, as often as there is something new; few of them
 * flow out to stderr: on a terminal each takes the place of the one before, elsewhere one is
 * written every few seconds, so that a log stays readable.
 */

interface ProgressLineParts {
  readonly write: (text: string) => void;
  /** The width of the terminal; null where nobody sees a line change. */
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
    // The cursor goes back, so that whatever is written next begins at the margin.
    write(`${line.slice(0, width - 1)}${clearLine}\r`);
    this.#isOnScreen = true;
  }

  /** Before anything else is written, and at the end. */
  clear(): void {
    if (this.#isOnScreen) this.#parts.write(clearLine);
    this.#isOnScreen = false;
  }
}
