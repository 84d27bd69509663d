/**
 * `npm run soak`: a fleet under every workload and a random mix of faults, for a number of minutes.
 * It prints its progress and one closing line, and exits with 0 only when no invariant was broken.
 * The same seed draws the same transactions and the same faults; their timing depends on the
 * machine. Ctrl-C ends it and removes everything.
 */
import { copyFile, mkdir, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { seeded } from '../../test/support/seed.ts';
import { useStack } from '../../test/support/stack.ts';
import { counted, grouped, Screen, seconds } from '../demo/screen.ts';
import { type Sandbox, startSandbox } from '../sandbox/sandbox.ts';
import { Segment } from './segment.ts';

const usage = `Usage: npm run soak -- [options]

  --minutes N      duration (10)
  --seed S         of transactions and faults (a new one)
  --partitions P   of every cluster (drawn for each)
  --brokers N      Kafka brokers: 1 or 3 (1)
`;

/** The life of a cluster: long enough for a dozen faults. */
const segmentMsMax = 150_000;
const drawnPartitions = [1, 3, 4] as const;
const lineEveryMs = { terminal: 500, plain: 10_000 } as const;
const logsRoot = fileURLToPath(new URL('../../.sandbox/', import.meta.url));

interface Options {
  readonly minutes: number;
  readonly seed: number;
  readonly partitions: number | null;
  readonly brokers: 1 | 3;
}

interface Totals {
  segments: number;
  faults: number;
  failovers: number;
  comparisons: number;
  commits: number;
  lost: number;
  snapshots: number;
  records: number;
}

function readOptions(args: readonly string[]): Options | 'help' {
  const { values } = parseArgs({
    args: [...args],
    options: {
      minutes: { type: 'string', default: '10' },
      seed: { type: 'string', default: String(Math.floor(Math.random() * 1e9)) },
      partitions: { type: 'string' },
      brokers: { type: 'string', default: '1' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return 'help';
  const numberOf = (name: string, text: string, most: number): number => {
    const number = Number(text);
    if (number > 0 && number <= most) return number;
    throw new UnderstudyError('USAGE', `--${name} ${text}`, 'npm run soak -- --help');
  };
  const brokers = numberOf('brokers', values.brokers, 3);
  if (brokers === 2) throw new UnderstudyError('USAGE', '--brokers 2', 'Name 1 or 3.');
  return {
    minutes: numberOf('minutes', values.minutes, 100_000),
    seed: numberOf('seed', values.seed, 1e10),
    partitions:
      values.partitions === undefined ? null : numberOf('partitions', values.partitions, 64),
    brokers: brokers === 1 ? 1 : 3,
  };
}

class Soak {
  readonly #options: Options;
  readonly #screen: Screen;
  readonly #sandbox: Sandbox;
  readonly #signal: AbortSignal;
  readonly #deadlineMs: number;
  readonly totals: Totals = {
    ...{ segments: 0, faults: 0, failovers: 0, comparisons: 0 },
    ...{ commits: 0, lost: 0, snapshots: 0, records: 0 },
  };
  #segment: Segment | null = null;
  #now = '';

  constructor(options: Options, screen: Screen, sandbox: Sandbox, signal: AbortSignal) {
    this.#options = options;
    this.#screen = screen;
    this.#sandbox = sandbox;
    this.#signal = signal;
    this.#deadlineMs = Date.now() + options.minutes * 60_000;
  }

  /** Segment after segment until the time is over; rejects at the first broken invariant. */
  async run(): Promise<void> {
    Object.assign(process.env, this.#sandbox.env());
    const stack = await useStack({ postgres: 3 });
    const { seed, partitions } = this.#options;
    const line = this.#showProgress();
    try {
      for (let number = 0; Date.now() < this.#deadlineMs; number += 1) {
        const ofSegment = seed + 7_919 * number;
        const random = seeded(ofSegment);
        const drawn = drawnPartitions[Math.floor(random() * drawnPartitions.length)] ?? 1;
        this.#now = 'creating a cluster';
        await this.#play({
          ...{ sandbox: this.#sandbox, stack, seed: ofSegment, random, signal: this.#signal },
          partitions: partitions ?? drawn,
          // The verdict and the next cluster take time too.
          lastsMs: Math.min(segmentMsMax, Math.max(10_000, (this.#deadlineMs - Date.now()) * 0.6)),
          report: (what) => this.#report(what),
        });
      }
    } finally {
      line.abort();
    }
    await stack.close();
  }

  async #play(parts: Parameters<typeof Segment.begin>[0]): Promise<void> {
    const segment = await Segment.begin(parts);
    this.#segment = segment;
    const { acknowledged, lost, records } = await segment.play();
    this.#now = 'destroying the cluster';
    await segment.run.close();
    this.#segment = null;
    const { totals } = this;
    addUp(totals, segment);
    totals.segments += 1;
    totals.lost += lost.length;
    totals.records += records;
    const { segments } = totals;
    this.#screen.line(
      `${this.#screen.clock()} segment ${segments} is sound: ${parts.partitions} partitions, ` +
        `${counted(segment.faultCount, 'fault')}, ${counted(segment.failovers, 'failover')}, ` +
        `${grouped(acknowledged)} commits, ${grouped(lost.length)} past a base, ` +
        `${grouped(records)} records`,
    );
  }

  #report(what: string): void {
    this.#now = what;
    if (!this.#screen.redraws) this.#screen.line(`${this.#screen.clock()} ${what}`);
  }

  #showProgress(): AbortController {
    const over = new AbortController();
    const every = this.#screen.redraws ? lineEveryMs.terminal : lineEveryMs.plain;
    const show = async (): Promise<void> => {
      while (!over.signal.aborted) {
        const text = this.#line();
        if (this.#screen.redraws) this.#screen.block([text]);
        else this.#screen.line(text);
        await sleep(every, undefined, { signal: over.signal });
      }
    };
    // It fails only by the abort.
    show().catch(() => undefined);
    return over;
  }

  /** Including the segment that runs. */
  get sofar(): Totals {
    const sofar = { ...this.totals };
    if (this.#segment !== null) addUp(sofar, this.#segment);
    return sofar;
  }

  #line(): string {
    const { commits, snapshots, faults } = this.sofar;
    const left = Math.max(0, this.#deadlineMs - Date.now());
    return (
      `${this.#screen.clock()} ${seconds(left)} left, ${counted(faults, 'fault')}, ` +
      `${grouped(commits)} commits, ${grouped(snapshots)} snapshots: ${this.#now}`
    );
  }

  /** Keeps the logs for the analysis of a failure, and returns their folder. */
  async keepLogs(): Promise<string> {
    const folder = join(logsRoot, `soak-${this.#options.seed}`);
    await mkdir(folder, { recursive: true });
    const agents = this.#segment?.run.fleet.logs(Number.POSITIVE_INFINITY) ?? '';
    await writeFile(join(folder, 'agents.log'), agents);
    const servers = [...this.#sandbox.postgres, ...this.#sandbox.kafka];
    for (const { logFile } of servers) {
      // A server that was never started has no log.
      await copyFile(logFile, join(folder, basename(logFile))).catch(() => undefined);
    }
    return folder;
  }

  /** Ends the agents and clients of an unfinished segment. */
  async abandon(): Promise<void> {
    await this.#segment?.run.abandon();
  }
}

function addUp(totals: Totals, { run, faultCount, failovers, comparisons }: Segment): void {
  totals.faults += faultCount;
  totals.failovers += failovers;
  totals.comparisons += comparisons;
  totals.commits += run.clients.acknowledged;
  totals.snapshots += run.watchers?.snapshots ?? 0;
}

function summary({ segments, faults, failovers, comparisons, commits, ...rest }: Totals): string {
  return (
    `${counted(segments, 'segment')}, ${counted(faults, 'fault')}, ` +
    `${counted(failovers, 'failover')}, ${counted(comparisons, 'comparison')}, ` +
    `${grouped(commits)} commits, ${grouped(rest.lost)} discarded past a base, ` +
    `${grouped(rest.snapshots)} snapshots, ${grouped(rest.records)} records`
  );
}

async function main(): Promise<number> {
  const options = readOptions(process.argv.slice(2));
  if (options === 'help') {
    process.stdout.write(usage);
    return 0;
  }
  const stop = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => stop.abort(new Error(`stopped by ${signal}`)));
  }
  const aborted = new Promise<never>((_, reject) => {
    stop.signal.addEventListener('abort', () => reject(stop.signal.reason));
  });
  // The race below reports it.
  aborted.catch(() => undefined);
  const screen = new Screen(process.stdout, Date.now);
  screen.line(`soak: ${options.minutes} min, seed ${options.seed}`);
  const { brokers } = options;
  const sandbox = await startSandbox({ brokers, log: (line) => screen.line(`  ${line}`) });
  const soak = new Soak(options, screen, sandbox, stop.signal);
  try {
    await Promise.race([soak.run(), aborted]);
    screen.freeze();
    screen.line(`soak: PASSED, seed ${options.seed}: ${summary(soak.sofar)}`);
    return 0;
  } catch (error) {
    const last = screen.handOver();
    if (stop.signal.aborted) {
      last.line('soak: interrupted, everything was stopped and removed');
      return 130;
    }
    const folder = await soak.keepLogs();
    last.line(error instanceof Error ? error.message : String(error));
    last.line(`logs: ${folder}`);
    last.line(`soak: FAILED, seed ${options.seed}: ${summary(soak.sofar)}`);
    return 1;
  } finally {
    await soak.abandon();
    await sandbox.stop();
  }
}

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  if (error instanceof UnderstudyError) process.stderr.write(`HINT: ${error.hint}\n`);
  process.exitCode = error instanceof UnderstudyError ? error.exit : 1;
}
process.exit();
