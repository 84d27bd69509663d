/**
 * What commands ask of an agent, through the control log. Flows in: requests for this node; flows
 * out: answers, and the request to take the lead, to leave the cluster or to be built anew. An
 * older request belongs to a command that has given up, but for one of these that nobody has
 * answered: its command
 * waits for minutes, and may have asked while this agent was starting or finding its way back after
 * an error. While a
 * comparison holds the follower, it stands exactly where it was told to, and goes on by itself when
 * the command is not heard of again.
 */

import type { RowKey } from '../../change/change.ts';
import { type EpochLsn, formatEpochLsn, parseEpochLsn } from '../../change/position.ts';
import type { ControlLog } from '../../control/control-log.ts';
import type { RecordOf } from '../../control/control-records.ts';
import { answerable } from '../../errors/bug.ts';
import { UnderstudyError } from '../../errors/understudy-error.ts';
import type { ApplyLimit } from '../../follower/apply/apply-portion.ts';
import type { Follower } from '../../follower/follower.ts';
import type { RebuildWay } from '../../follower/state/rebuild-state.ts';
import type { Leading } from '../../leader/leader.ts';
import { sleepOrAbort } from '../../waiting.ts';

export type AgentRequest = RecordOf<'request'>;

/** How long a command waits for a failover: slot, drain and streaming have limits of their own. */
export const failoverWaitMs = 180_000;
/** The same for a detach: what it applies first may be as much as a delay holds back. */
export const detachWaitMs = 180_000;
/** The same for a rebuild, which is answered once it has begun. */
export const rebuildWaitMs = 60_000;
const lastingVerbs: readonly string[] = ['failover', 'detach', 'rebuild'];
/** A command that holds a follower and dies must not stop it for ever. */
const holdMaxMs = 60_000;
const requestLookMs = 200;

export class RequestDesk {
  readonly #control: ControlLog;
  readonly #node: string;
  readonly #nowMs: () => number;
  readonly #seen = new Set<string>();
  readonly #unwatch: () => void;
  readonly #queue: AgentRequest[] = [];
  #wake: (() => void) | null = null;

  constructor(control: ControlLog, node: string, nowMs: () => number) {
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

  #isAnswered({ id, step }: AgentRequest): boolean {
    return this.#control.answers(id).some((answer) => answer.step === step);
  }

  close(): void {
    this.#unwatch();
  }

  /**
   * Serves requests until the follower ends; gives the first that asks to take the lead or to leave
   * the cluster. A follower that goes to a place of its own, `until`, does nothing else meanwhile.
   */
  async serve(
    follower: Follower,
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
        if (request.verb === 'detach') return request;
        if (until !== null) {
          await this.answer(request, null, isBusy(this.#node));
          continue;
        }
        if (request.verb === 'failover' || request.verb === 'rebuild') return request;
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

  /** Of a node that can do nothing else meanwhile: every answer is `reply`'s, until an abort. */
  async serveBusy(
    reply: (request: AgentRequest) => Promise<Record<string, unknown>>,
    signal: AbortSignal,
  ): Promise<void> {
    while (!signal.aborted) {
      const request = this.#queue.shift();
      if (request === undefined) {
        await sleepOrAbort(requestLookMs, signal);
        continue;
      }
      // Whoever asked to hold the follower hears that once.
      if (request.step === 'release') continue;
      try {
        await this.answer(request, await reply(request), null);
      } catch (error) {
        await this.answer(request, null, answerable(error));
      }
    }
  }

  /** Serves who asks a leader to publish rows, one after the other, until `signal` aborts. */
  async serveRepairs({ publishRows }: Leading, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const at = this.#queue.findIndex(({ verb }) => verb === 'repair');
      const [request] = at < 0 ? [] : this.#queue.splice(at, 1);
      if (request === undefined) {
        await sleepOrAbort(requestLookMs, signal);
        continue;
      }
      try {
        const keys = keysOf(request);
        await publishRows(keys);
        if (signal.aborted) return;
        await this.answer(request, { published: keys.length }, null);
      } catch (error) {
        const isAnswer =
          error instanceof UnderstudyError && ['USAGE', 'TIMED_OUT'].includes(error.code);
        if (!isAnswer) throw error;
        await this.answer(request, null, error);
      }
    }
  }

  /** `hold` stands still at once; `go` then moves on exactly to an LSN. */
  async #hold(follower: Follower, request: AgentRequest): Promise<void> {
    const to = targetOf(request);
    if (request.step === 'go' && to === null) {
      await this.answer(request, null, badTarget(request));
      return;
    }
    const position = await follower.pauseAt(
      to === null ? { kind: 'hold' } : { kind: 'to', at: to },
    );
    if (position !== null) await this.answer(request, { at: formatEpochLsn(position.at) }, null);
  }

  /**
   * Tells every command that asked for this reign. One whose epoch was claimed before a crash hears
   * of it from the attempt that carried the claim through.
   */
  async tellLeads(result: Record<string, unknown>): Promise<void> {
    const { claims } = this.#control.state;
    const isMine = (epoch: unknown): boolean =>
      claims.some((claim) => claim.epoch === epoch && claim.node === this.#node);
    for (const request of this.#all()) {
      const isAsked = request.verb === 'failover' && isMine(request.args['epoch']);
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

/**
 * Whether the command still waits that made a request before the desk opened. Clocks of two
 * machines decide no more than whether it has to ask again: which one epoch may be claimed for it
 * stands in the request.
 */
export function stillWaits(request: AgentRequest, isAnswered: boolean, nowMs: number): boolean {
  if (!lastingVerbs.includes(request.verb) || isAnswered) return false;
  return Math.abs(nowMs - Date.parse(request.time)) < failoverWaitMs;
}

/** The epoch that a request meant: a later one would end the reign of whoever was faster. */
export function epochAsked(request: AgentRequest | null): number | null {
  const epoch = request?.args.epoch;
  return typeof epoch === 'number' ? epoch : null;
}

function keyOf({ id, step }: AgentRequest): string {
  return `${id}/${step}`;
}

/** The LSN that a request names, or null. */
export function targetOf(request: AgentRequest): EpochLsn | null {
  const { to } = request.args;
  return typeof to === 'string' ? parseEpochLsn(to) : null;
}

/** How a node is to be built anew. */
export function wayOf({ id, args: { way } }: AgentRequest): RebuildWay {
  if (way === 'swap' || way === 'in-place') return way;
  throw new UnderstudyError(
    'USAGE',
    `the request ${id} names no way to rebuild the node`,
    'Run the version of pg-understudy that the agent runs.',
  );
}

function keysOf({ id, args: { relation, keys } }: AgentRequest): RowKey[] {
  const isText = (one: unknown): one is string => typeof one === 'string';
  const isKey = (one: unknown): one is string[] => Array.isArray(one) && one.every(isText);
  if (isText(relation) && Array.isArray(keys) && keys.every(isKey)) {
    return keys.map((identity) => ({ relationId: relation, identity }));
  }
  throw new UnderstudyError(
    'USAGE',
    `the request ${id} names no keys`,
    'Run the version of pg-understudy that the agent runs.',
  );
}

function isBusy(node: string): UnderstudyError {
  return new UnderstudyError(
    'PREREQUISITE',
    `the agent of node ${node} was told to stop at a place (run --until)`,
    `Wait until it is there, then start it without: understudy run ${node}`,
  );
}

function badTarget(request: AgentRequest): UnderstudyError {
  return new UnderstudyError(
    'USAGE',
    `the request ${request.id} names no LSN to go to`,
    'Run the version of pg-understudy that the agent runs.',
  );
}
