/**
 * What commands ask of an agent, through the control log. Flows in: requests for this node that
 * were appended after the agent started (an older one belongs to a command that has given up);
 * flows out: answers, and the request to take the lead. While a comparison holds the follower, it
 * stands exactly where it was told to, and goes on by itself when the command is not heard of
 * again.
 */
import { type EpochLsn, formatEpochLsn, parseEpochLsn } from '../change/position.ts';
import type { ControlLog } from '../control/control-log.ts';
import type { RecordOf } from '../control/control-records.ts';
import { UnderstudyError } from '../errors.ts';
import type { Follower } from '../follower/follower.ts';

export type AgentRequest = RecordOf<'request'>;

/** A command that holds a follower and dies must not stop it for ever. */
const holdMaxMs = 60_000;

export class RequestDesk {
  readonly #control: ControlLog;
  readonly #node: string;
  readonly #seen = new Set<string>();
  readonly #unwatch: () => void;
  readonly #queue: AgentRequest[] = [];
  #wake: (() => void) | null = null;

  constructor(control: ControlLog, node: string) {
    this.#control = control;
    this.#node = node;
    for (const request of this.#all()) this.#seen.add(keyOf(request));
    this.#unwatch = control.onChange(() => this.#collect());
  }

  close(): void {
    this.#unwatch();
  }

  /** Serves requests until the follower ends; gives the first that asks to take the lead. */
  async serve(follower: Follower, ended: Promise<void>): Promise<AgentRequest | null> {
    let holdTimer: NodeJS.Timeout | undefined;
    const release = (): void => {
      clearTimeout(holdTimer);
      follower.setLimit({ kind: 'none' });
    };
    const hold = (): void => {
      clearTimeout(holdTimer);
      holdTimer = setTimeout(release, holdMaxMs);
    };
    let fail: (error: unknown) => void = () => undefined;
    const failed = new Promise<never>((_, reject) => {
      fail = reject;
    });
    const over = Promise.race([ended.then(() => 'over' as const), failed]);
    // What ends after this desk has closed is heard of by whoever runs the follower.
    over.catch(() => undefined);
    try {
      for (;;) {
        const request = this.#queue.shift();
        if (request === undefined) {
          const woken = new Promise<'woken'>((resolve) => {
            this.#wake = () => resolve('woken');
          });
          if ((await Promise.race([over, woken])) === 'over') return null;
          continue;
        }
        if (request.verb === 'failover') return request;
        if (request.verb !== 'hold') continue;
        if (request.step === 'release') release();
        else {
          hold();
          // Not waited for: a later request may release the hold, or ask for the lead instead.
          this.#hold(follower, request).catch(fail);
        }
      }
    } finally {
      release();
    }
  }

  /** `hold` stands still at once; `go` then moves on exactly to an LSN. */
  async #hold(follower: Follower, request: AgentRequest): Promise<void> {
    const to = targetOf(request);
    if (request.step === 'go' && to === null) {
      await this.answer(request, null, badTarget(request));
      return;
    }
    const position = await follower.standAt(
      to === null ? { kind: 'hold' } : { kind: 'to', at: to },
    );
    if (position !== null) await this.answer(request, { at: formatEpochLsn(position.at) }, null);
  }

  async answer(
    request: AgentRequest,
    result: Record<string, unknown> | null,
    error: UnderstudyError | null,
  ): Promise<void> {
    await this.#control.append({
      kind: 'answer',
      request: request.id,
      step: request.step,
      node: this.#node,
      result: result as never,
      error: error === null ? null : error.toJSON(),
      time: new Date().toISOString(),
    });
  }

  #all(): AgentRequest[] {
    const requests = [...this.#control.state.requests.values()].flat();
    return requests.filter(({ node }) => node === this.#node);
  }

  #collect(): void {
    for (const request of this.#all()) {
      if (this.#seen.has(keyOf(request))) continue;
      this.#seen.add(keyOf(request));
      this.#queue.push(request);
    }
    const wake = this.#wake;
    this.#wake = null;
    if (this.#queue.length > 0) wake?.();
    else this.#wake = wake;
  }
}

function keyOf({ id, step }: AgentRequest): string {
  return `${id}/${step}`;
}

function targetOf(request: AgentRequest): EpochLsn | null {
  const { to } = request.args;
  return typeof to === 'string' ? parseEpochLsn(to) : null;
}

function badTarget(request: AgentRequest): UnderstudyError {
  return new UnderstudyError(
    'USAGE',
    `the request ${request.id} names no LSN to go to`,
    'Run the version of pg-understudy that the agent runs.',
  );
}
