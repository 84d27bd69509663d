/**
 * Shows the fleet and the shop while they run: the state of the nodes, and the counts of writers
 * and readers. On a terminal it is a table that is redrawn in place, otherwise one plain line every
 * two seconds.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { formatEpochLsn } from '../../src/change/position.ts';
import type { FleetView, NodeView } from './fleet-view.ts';
import type { Journal } from './journal.ts';
import type { Readers } from './readers.ts';
import { counted, grouped, type Screen, seconds } from './screen.ts';
import type { Writers } from './writers.ts';

export interface LiveTableParts {
  readonly screen: Screen;
  readonly fleet: FleetView;
  readonly writers: Writers;
  readonly readers: Readers;
  readonly journal: Journal;
  readonly nowMs: () => number;
}

const redrawEveryMs = 500;
const plainLineEveryMs = 2_000;
/** Longer than the time between two plain lines. */
const rateWindowMs = 3_000;

const columns = ['node', 'role', 'position', 'lag', 'orders', 'rows/s', 'snapshots read'] as const;
const widths = [6, 10, 16, 20, 9, 9, 14] as const;

export class LiveTable {
  readonly #parts: LiveTableParts;
  readonly #running: Promise<void>;
  #commits: { readonly atMs: number; readonly count: number }[] = [];
  #stopped = false;
  #wake: () => void = () => undefined;

  constructor(parts: LiveTableParts) {
    this.#parts = parts;
    this.#running = this.#run();
    // The story awaits `ended`, which reports it.
    this.#running.catch(() => undefined);
  }

  get ended(): Promise<void> {
    return this.#running;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#wake();
    await this.#running;
    this.#parts.screen.freeze();
  }

  async #run(): Promise<void> {
    const { screen, fleet } = this.#parts;
    const everyMs = screen.redraws ? redrawEveryMs : plainLineEveryMs;
    while (!this.#stopped) {
      const nodes = await fleet.read();
      const rate = this.#commitRate();
      if (screen.redraws) screen.block(this.#table(nodes, rate));
      else screen.line(this.#plainLine(nodes, rate));
      const woken = new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      const timer = new AbortController();
      // It fails only by the abort below.
      const slept = sleep(everyMs, undefined, { signal: timer.signal }).catch(() => undefined);
      await Promise.race([slept, woken]);
      timer.abort();
    }
  }

  #commitRate(): number {
    const { journal, nowMs } = this.#parts;
    const now = { atMs: nowMs(), count: journal.acknowledged };
    this.#commits = this.#commits.filter(({ atMs }) => now.atMs - atMs <= rateWindowMs);
    this.#commits.push(now);
    const [first = now] = this.#commits;
    return now.atMs === first.atMs
      ? 0
      : ((now.count - first.count) * 1000) / (now.atMs - first.atMs);
  }

  #table(nodes: readonly NodeView[], rate: number): string[] {
    const { screen, readers } = this.#parts;
    const row = (cells: readonly string[]): string =>
      cells.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join('');
    return [
      '',
      `  ${screen.style(row(columns), 'dim')}`,
      ...nodes.map((node) => {
        const orders = node.orders === null ? '' : grouped(node.orders);
        const rows = node.rowsPerSecond === null ? '' : grouped(node.rowsPerSecond);
        const read = readers.of(node.name)?.snapshots;
        const at = node.at === null ? '' : formatEpochLsn(node.at);
        const cells = [node.name, node.role, at, lagText(node), orders, rows];
        const text = row([...cells, read === undefined ? '' : grouped(read)]);
        return `  ${this.#styled(text, node)}`;
      }),
      `  ${this.#shopText(rate)}`,
    ];
  }

  #styled(text: string, { role }: NodeView): string {
    const { screen } = this.#parts;
    if (role === 'leader') return screen.style(text, 'bold', 'green');
    return role === 'down' ? screen.style(text, 'red') : text;
  }

  #plainLine(nodes: readonly NodeView[], rate: number): string {
    const fleet = nodes.map((node) => {
      const at = node.at === null ? '' : ` at ${formatEpochLsn(node.at)}`;
      if (node.role === 'follower') return `${node.name} follows${at}, lag ${lagText(node)}`;
      return `${node.name} ${node.role === 'leader' ? 'leads' : 'is down'}${at}`;
    });
    return `  ${this.#parts.screen.clock()} ${fleet.join(' | ')} | ${this.#shopText(rate)}`;
  }

  #shopText(rate: number): string {
    const { writers, readers, journal, screen } = this.#parts;
    const where = [...new Set(writers.connectedTo)].join(', ');
    const connected = writers.connectedTo.length;
    const searching = connected === 0 ? 'are searching for a leader' : `on ${where}`;
    const state = writers.stopped ? 'are stopping' : searching;
    const { snapshots, ownWrites } = readers.total();
    const wrong = readers.violations.length;
    const verdict =
      wrong === 0
        ? screen.style('nothing torn', 'green')
        : screen.style(`${wrong} VIOLATIONS`, 'red');
    return (
      `${connected}/${writers.count} writers ${state}, ${grouped(rate)} commits/s, ` +
      `${grouped(journal.acknowledged)} acknowledged; ` +
      `${counted(snapshots + ownWrites, 'read')}: ${verdict}`
    );
  }
}

function lagText({ role, lagMs, lagBytes }: NodeView): string {
  if (role !== 'follower') return '';
  if (lagMs === null || lagBytes === null) return '?';
  if (lagBytes === 0) return 'none';
  const time = lagMs < 1000 ? `${Math.round(lagMs)} ms` : seconds(lagMs);
  const kib = lagBytes / 1024;
  return `${time}, ${kib < 10 ? kib.toFixed(1) : grouped(kib)} kB`;
}
