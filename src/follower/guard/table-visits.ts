/**
 * The order in which the tables of a database are visited to change their write guard: which ones
 * are next, whether a visit may wait for a lock, which are visited again, and when all are done. It
 * takes tables and how each visit ended. It promises that no busy table delays another: the first
 * round waits for no lock, and every round visits each table that is not done, once. Pure.
 */

/** What to do next. */
type NextVisit<Table> =
  /** In one transaction; each of them may be busy. */
  | { readonly kind: 'together'; readonly tables: readonly Table[] }
  /** Alone in its transaction: while it waits it holds no lock of another table. */
  | { readonly kind: 'waiting'; readonly table: Table }
  /** Every table that is not done was visited in this round; `nextRound` begins another. */
  | { readonly kind: 'round over'; readonly busy: readonly Table[] }
  | { readonly kind: 'done' };

/**
 * Each transaction is one flush of the WAL, and writers wait for the locks of a whole transaction:
 * so many tables take some 50 ms.
 */
const tablesTogether = 50;

export class TableVisits<Table> {
  #open: readonly Table[];
  #busy: Table[] = [];
  #round = 0;

  constructor(tables: readonly Table[]) {
    this.#open = tables;
  }

  /** Rounds that have begun before the present one. */
  get round(): number {
    return this.#round;
  }

  /** Tables that are not done, in the order in which they are visited next. */
  get left(): readonly Table[] {
    return [...this.#open, ...this.#busy];
  }

  /** The caller visits what it gives, and says how that ended, before it asks again. */
  next(): NextVisit<Table> {
    const [first] = this.#open;
    if (first === undefined) {
      return this.#busy.length === 0 ? { kind: 'done' } : { kind: 'round over', busy: this.#busy };
    }
    if (this.#round > 0) return { kind: 'waiting', table: first };
    return { kind: 'together', tables: this.#open.slice(0, tablesTogether) };
  }

  /** The tables that `next` gave were visited, and these of them have to be visited again. */
  visited(tables: readonly Table[], busy: readonly Table[]): void {
    this.#open = this.#open.slice(tables.length);
    // rule: busy-tables-come-last
    this.#busy.push(...busy);
  }

  nextRound(): void {
    this.#open = [...this.#open, ...this.#busy];
    this.#busy = [];
    this.#round += 1;
  }
}
