/**
 * One promotion as its requester sees it. It takes the steps as they begin and the end of the
 * promotion, and gives the answer with the time that each step took. A promotion that a crash
 * interrupted after its claim has no requester here: it is only logged.
 */
import { formatEpochLsn } from '../../change/position.ts';
import { answerable } from '../../errors/answers.ts';
import type { RequestDesk } from '../node/request-desk.ts';
import type { AgentRequest } from '../node/requests.ts';
import { type BoundedLists, boundedLists } from './answer-bounds.ts';
import type { ReadyEpoch } from './promotion-steps.ts';
import { type StepTime, StepTimes } from './step-times.ts';

/** The JSON of failover. What the former leader still had is not known before it is reachable. */
export interface PromotionResult extends BoundedLists {
  readonly node: string;
  readonly epoch: number;
  readonly lsn: string;
  readonly base: string | null;
  readonly discarded: null;
  readonly rpo: { readonly transactions: null; readonly bytes: null };
  readonly steps: readonly StepTime[];
}

type Promoted = Pick<ReadyEpoch, 'epoch' | 'checkpoint' | 'base' | 'sequences' | 'lacks'>;

export function resultOf(
  node: string,
  { epoch, checkpoint, base, ...lists }: Promoted,
  steps: PromotionResult['steps'],
): PromotionResult {
  return {
    node,
    epoch,
    lsn: formatEpochLsn(checkpoint.at),
    base: base === null ? null : formatEpochLsn(base),
    ...boundedLists(lists),
    discarded: null,
    rpo: { transactions: null, bytes: null },
    steps,
  };
}

interface PromotionOptions {
  readonly node: string;
  /** The one epoch that may be claimed; null where an earlier claim is completed. */
  readonly mayClaim: number | null;
  readonly nowMs: () => number;
  /** Null where no command asked through the control log. */
  readonly asked: {
    readonly request: AgentRequest;
    readonly desk: Pick<RequestDesk, 'answer'>;
  } | null;
}

export class PromotionRequest {
  readonly mayClaim: number | null;
  /** Resolves once the node leads. */
  readonly leads: Promise<PromotionResult>;
  readonly #node: string;
  readonly #asked: PromotionOptions['asked'];
  readonly #steps: StepTimes;
  #resolve: (result: PromotionResult) => void = () => undefined;
  #isDone = false;

  constructor({ node, mayClaim, nowMs, asked }: PromotionOptions) {
    this.#node = node;
    this.mayClaim = mayClaim;
    this.#asked = asked;
    this.#steps = new StepTimes(nowMs);
    this.leads = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  /** Whether a failure is the requester's, and not the agent's own: it does not lead yet. */
  get isAwaited(): boolean {
    return this.#asked !== null && !this.#isDone;
  }

  step(step: string): void {
    this.#steps.begin(step);
  }

  /** The request desk answers every command that asked for this epoch. */
  succeeded(promoted: Promoted): PromotionResult {
    const result = resultOf(this.#node, promoted, this.#steps.end());
    this.#isDone = true;
    this.#resolve(result);
    return result;
  }

  async failed(error: unknown): Promise<void> {
    if (this.#asked === null) return;
    const { request, desk } = this.#asked;
    await desk.answer(request, null, answerable(error));
  }
}
