/**
 * The requests for one node, as its agent serves them. It reads them from the control log, answers
 * them there, and gives the caller those that end what the node does: to lead, to leave the
 * cluster, to be rebuilt. A request that is older than the agent belongs to a command that has
 * given up, except for these. While a comparison holds the follower, it stops exactly where it was
 * told to, and continues by itself when no further request comes.
 */
import { type EpochLsn, formatEpochLsn } from '../../change/position.ts';
import type { ControlLog } from '../../control/control-log.ts';
import { answerable } from '../../errors/answers.ts';
import { agentBusy } from '../../errors/prerequisite.ts';
import { hasCode, type UnderstudyError } from '../../errors/understudy-error.ts';
import { incompleteRequest } from '../../errors/usage.ts';
import type { ApplyLimit } from '../../follower/apply/apply-portion.ts';
import type { Follower } from '../../follower/follower.ts';
import type { Leading } from '../../leader/leader.ts';
import { unlessAborted, WakeUp } from '../../waiting.ts';
import { type AgentRequest, keysOf, stillWaits, targetOf } from './requests.ts';

/** A command that holds a follower and dies must not stop it for ever. */
const holdMaxMs = 60_000;

type DeskLog = Pick<ControlLog, 'state' | 'answers' | 'append' | 'onChange'>;
type HeldFollower = Pick<Follower, 'pauseAt' | 'setLimit'>;

export class RequestDesk {
  readonly #control: DeskLog;
  readonly #node: string;
  readonly #nowMs: () => number;
  readonly #seen = new Set<string>();
  readonly #unwatch: () => void;
  readonly #queue: AgentRequest[] = [];
  readonly #wakeUp = new WakeUp();

  constructor(control: DeskLog, node: string, nowMs: () => number) {
    this.#control = control;
    this.#node = node;
    this.#nowMs = nowMs;
    for (const request of this.#all()) {
      const waits = stillWaits(request, this.#isAnswered(request), this.#nowMs());
      if (!waits) this.#seen.add(keyOf(request));
    }
    this.#unwatch = control.onChange(() => this.#collect());
    this.#collect();
  }

  close(): void {
    this.#unwatch();
  }

  /**
   * Serves requests until the follower ends; gives the first one that ends the following. Where the
   * follower is to stop at an LSN, `until`, the other requests are refused.
   */
  async serve(
    follower: HeldFollower,
    ended: Promise<void>,
    until: ApplyLimit | null = null,
  ): Promise<AgentRequest | null> {
    let holdTimer: NodeJS.Timeout | undefined;
    const release = (): void => {
      clearTimeout(holdTimer);
      follower.setLimit(until ?? { kind: 'none' });
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
    // After this has returned, the caller awaits `ended`.
    over.catch(() => undefined);
    try {
      for (;;) {
        const request = this.#queue.shift();
        if (request === undefined) {
          const end = await Promise.race([over, this.#wakeUp.sleep()]);
          if (end === 'over') return null;
          continue;
        }
        if (request.verb === 'detach') return request;
        if (until !== null) {
          await this.answer(request, null, agentBusy(this.#node));
          continue;
        }
        if (request.verb === 'failover' || request.verb === 'rebuild') return request;
        if (request.verb !== 'hold') continue;
        if (request.step === 'release') release();
        else {
          hold();
          // Not awaited: a later request may release the hold, or end the following.
          this.#hold(follower, request).catch(fail);
        }
      }
    } finally {
      release();
    }
  }

  /** A failover of this node that its command waits for; null where there is none. */
  takeFailover(): AgentRequest | null {
    const at = this.#queue.findIndex(({ verb }) => verb === 'failover');
    return at < 0 ? null : (this.#queue.splice(at, 1)[0] ?? null);
  }

  /** For a node that can do nothing else meanwhile: `reply` gives every answer, until an abort. */
  async serveBusy(
    reply: (request: AgentRequest) => Promise<Record<string, unknown>>,
    signal: AbortSignal,
  ): Promise<void> {
    while (!signal.aborted) {
      const request = this.#queue.shift();
      if (request === undefined) {
        await unlessAborted(this.#wakeUp.sleep(), signal);
        continue;
      }
      // The command that asked to hold the follower was refused then.
      if (request.step === 'release') continue;
      try {
        await this.answer(request, await reply(request), null);
      } catch (error) {
        await this.answer(request, null, answerable(error));
      }
    }
  }

  /** For a leader: publishes the rows that commands ask for, until `signal` aborts. */
  async serveRepairs(
    { publishRows }: Pick<Leading, 'publishRows'>,
    signal: AbortSignal,
  ): Promise<void> {
    while (!signal.aborted) {
      const at = this.#queue.findIndex(({ verb }) => verb === 'repair');
      const [request] = at < 0 ? [] : this.#queue.splice(at, 1);
      if (request === undefined) {
        await unlessAborted(this.#wakeUp.sleep(), signal);
        continue;
      }
      try {
        const keys = keysOf(request);
        await publishRows(keys);
        if (signal.aborted) return;
        await this.answer(request, { published: keys.length }, null);
      } catch (error) {
        if (!hasCode(error, 'USAGE', 'TIMED_OUT')) throw error;
        await this.answer(request, null, error);
      }
    }
  }

  /** `hold` pauses the follower at once; `go` then moves it exactly to an LSN. */
  async #hold(follower: HeldFollower, request: AgentRequest): Promise<void> {
    const to = targetOf(request);
    if (request.step === 'go' && to === null) {
      await this.answer(request, null, incompleteRequest(request.id, 'no LSN to go to'));
      return;
    }
    const position = await follower.pauseAt(limitOf(to));
    if (position !== null) await this.answer(request, { at: formatEpochLsn(position.at) }, null);
  }

  /**
   * Answers every command that asked for this promotion. A command whose epoch was claimed before a
   * crash gets its answer from the attempt that completed the promotion.
   */
  async answerFailovers(result: Record<string, unknown>): Promise<void> {
    const { claims } = this.#control.state;
    const isOwn = (epoch: unknown): boolean =>
      claims.some((claim) => claim.epoch === epoch && claim.node === this.#node);
    for (const request of this.#all()) {
      const isAsked = request.verb === 'failover' && isOwn(request.args['epoch']);
      if (isAsked && !this.#isAnswered(request)) await this.answer(request, result, null);
    }
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
      time: new Date(this.#nowMs()).toISOString(),
    });
  }

  #isAnswered({ id, step }: AgentRequest): boolean {
    return this.#control.answers(id).some((answer) => answer.step === step);
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
    if (this.#queue.length > 0) this.#wakeUp.wake();
  }
}

function limitOf(to: EpochLsn | null): ApplyLimit {
  return to === null ? { kind: 'hold' } : { kind: 'to', at: to };
}

function keyOf({ id, step }: AgentRequest): string {
  return `${id}/${step}`;
}
