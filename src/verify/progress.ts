/**
 * The progress of a comparison. It takes the tables that each node has to read, and every part that
 * was read, and reports after each part how much is done. Progress is counted in pages, whose
 * number is known before they are read.
 */
import type { PublishedTable } from './published-tables.ts';
import type { ReadPart } from './table-digest.ts';

export interface ProgressState {
  readonly what: string;
  /** From 0 to 1. Nodes are read in parallel, so it is that of the slowest node. */
  readonly done: number;
  readonly tookMs: number;
  readonly nodes: readonly NodeState[];
}

interface NodeState {
  readonly name: string;
  readonly tables: number;
  readonly tablesDone: number;
  readonly rows: bigint;
}

interface NodePart extends NodeState {
  readonly weight: number;
  weightDone: number;
  tablesDone: number;
  rows: bigint;
}

interface NodeProgress {
  readonly onRead: (part: ReadPart) => void;
  readonly onTable: () => void;
}

/** For a table that is empty, or that has no pages to count. */
const leastWeight = 1;

export class Progress {
  readonly #what: string;
  readonly #report: (state: ProgressState) => void;
  readonly #nowMs: () => number;
  readonly #beganMs: number;
  readonly #nodes: NodePart[] = [];

  constructor(what: string, report: (state: ProgressState) => void, nowMs: () => number) {
    this.#what = what;
    this.#report = report;
    this.#nowMs = nowMs;
    this.#beganMs = nowMs();
  }

  node(name: string, tables: readonly Pick<PublishedTable, 'pages'>[]): NodeProgress {
    const weight = tables.reduce((sum, { pages }) => sum + Math.max(leastWeight, pages), 0);
    const counts = { tables: tables.length, tablesDone: 0, rows: 0n, weight, weightDone: 0 };
    const part: NodePart = { name, ...counts };
    this.#nodes.push(part);
    return {
      onRead: ({ rows, pages }) => {
        part.rows += rows;
        part.weightDone += Math.max(leastWeight, pages);
        this.#report(this.#state());
      },
      onTable: () => {
        part.tablesDone += 1;
      },
    };
  }

  #state(): ProgressState {
    const done = this.#nodes.map(({ weight, weightDone }) => Math.min(1, weightDone / weight));
    return {
      what: this.#what,
      done: Math.min(...done),
      tookMs: this.#nowMs() - this.#beganMs,
      nodes: this.#nodes.map(({ name, tables, tablesDone, rows }) => {
        return { name, tables, tablesDone, rows };
      }),
    };
  }
}
