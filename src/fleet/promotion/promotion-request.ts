/**
 * One promotion as its requester sees it. Flows in: the steps of taking the lead, as they come;
 * flows out: the answer to the request, with how long each step took. What is not asked for by a
 * request (a promotion that a crash interrupted after its claim) is only logged.
 */
import { formatEpochLsn } from '../../change/position.ts';
import { answerable } from '../../errors/bug.ts';
import type { NodeAccess } from '../node/node-access.ts';
import type { AgentRequest, RequestDesk } from '../node/requests.ts';
import type { Lead } from './promotion-steps.ts';
import type { SequenceChange } from './sequences.ts';
import { type StepTime, StepTimes } from './step-times.ts';

/**
 * design: the JSON of failover. What the dead leader still had is unknown until it is looked at.
 */
export interface PromotionResult {
  readonly node: string;
  readonly epoch: number;
  readonly lsn: string;
  readonly base: string | null;
  readonly sequences: readonly SequenceChange[];
  /** Parts of the schema that it leads without, each with the reason. */
  readonly lacks: readonly string[];
  readonly discarded: null;
  readonly rpo: { readonly transactions: null; readonly bytes: null };
  readonly steps: readonly StepTime[];
}

export function resultOf(
  node: string,
  lead: Pick<Lead, 'epoch' | 'checkpoint' | 'base' | 'sequences' | 'lacks'>,
  steps: PromotionResult['steps'],
): PromotionResult {
  return {
    node,
    epoch: lead.epoch,
    lsn: formatEpochLsn(lead.checkpoint.at),
    base: lead.base === null ? null : formatEpochLsn(lead.base),
    sequences: lead.sequences,
    lacks: lead.lacks,
    discarded: null,
    rpo: { transactions: null, bytes: null },
    steps,
  };
}

export class Promotion {
  /** Resolves once the node leads. */
  readonly leads: Promise<PromotionResult>;
  #led: (result: PromotionResult) => void = () => undefined;
  /** The one epoch that may be claimed; null where an earlier claim is carried through. */
  readonly mayClaim: number | null;
  readonly #node: NodeAccess;
  readonly #request: AgentRequest | null;
  readonly #desk: RequestDesk | null;
  readonly #steps: StepTimes;
  #done = false;

  constructor(
    node: NodeAccess,
    mayClaim: number | null,
    request: AgentRequest | null = null,
    desk: RequestDesk | null = null,
  ) {
    this.#node = node;
    this.mayClaim = mayClaim;
    this.#request = request;
    this.#desk = desk;
    this.#steps = new StepTimes(node.cluster.around.nowMs);
    this.leads = new Promise((resolve) => {
      this.#led = resolve;
    });
  }

  get wasAsked(): boolean {
    return this.#request !== null;
  }

  /** Whether the node leads. */
  get done(): boolean {
    return this.#done;
  }

  step(step: string): void {
    this.#steps.begin(step);
  }

  /** Whoever asked is then told by the request desk. */
  succeeded(lead: Lead): PromotionResult {
    const result = resultOf(this.#node.name, lead, this.#steps.end());
    this.#done = true;
    this.#led(result);
    return result;
  }

  async failed(error: unknown): Promise<void> {
    if (this.#request === null || this.#desk === null) return;
    await this.#desk.answer(this.#request, null, answerable(error));
  }
}
