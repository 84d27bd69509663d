/**
 * A follower of the model's table. Flows in: what is streamed, and points; flows out: its rows, and
 * an error where a change leaves out a value that it cannot have, although nothing was said to be
 * missing.
 */
import type { RowChange } from '../../src/change/change.ts';
import type { Row } from './model-writes.ts';

type Streamed = RowChange | 'truncate';

export class ModelFollower {
  readonly #rows = new Map<string, Row>();
  /** What a key change took away, for the row under the new key. */
  readonly #moved = new Map<string, Row>();
  #waiting: Streamed[] = [];
  #isUnfinished = false;

  begin(isUnfinished: boolean): void {
    this.#isUnfinished = isUnfinished;
  }

  streamed(change: Streamed): void {
    this.#waiting.push(change);
  }

  /** All that waits is applied; the table was unfinished before, or still is. */
  point(isUnfinished: boolean): void {
    const mayLack = this.#isUnfinished || isUnfinished;
    for (const change of this.#waiting) this.#apply(change, mayLack);
    this.#waiting = [];
    this.#isUnfinished = isUnfinished;
  }

  #apply(change: Streamed, mayLack: boolean): void {
    if (change === 'truncate') {
      this.#rows.clear();
      return;
    }
    const [key = ''] = change.identity;
    const held = this.#rows.get(key);
    if (change.values === null) {
      if (held !== undefined) this.#moved.set(key, held);
      else this.#moved.delete(key);
      this.#rows.delete(key);
      return;
    }
    const [, small, large] = change.values;
    const base = change.was === null ? held : this.#moved.get(change.was[0] ?? '');
    const isPartial = change.unchanged.length > 0;
    if (isPartial && base === undefined) {
      if (!mayLack) throw new Error(`a follower has no row to complete ${key} from`);
      return;
    }
    const value = isPartial ? base?.large : large;
    this.#rows.set(key, { small: small ?? '', large: value ?? '' });
  }

  check(truth: ReadonlyMap<string, Row>): void {
    const told = (rows: ReadonlyMap<string, Row>): string => {
      return JSON.stringify([...rows].sort(([a], [b]) => (a < b ? -1 : 1)));
    };
    if (told(this.#rows) === told(truth)) return;
    throw new Error(`a follower holds ${told(this.#rows)}, not ${told(truth)}`);
  }
}
