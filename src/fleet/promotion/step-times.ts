/**
 * How long each step of a command took. It takes the name of each step as it begins, and gives the
 * list that is part of the answer.
 */
export interface StepTime {
  readonly step: string;
  readonly ms: number;
}

export class StepTimes {
  readonly #nowMs: () => number;
  readonly #ended: StepTime[] = [];
  #open: string | null = null;
  #sinceMs: number;

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
    this.#sinceMs = nowMs();
  }

  begin(step: string): void {
    this.end();
    this.#open = step;
  }

  /** Of all steps so far, the last of which ends here. */
  end(): readonly StepTime[] {
    const nowMs = this.#nowMs();
    if (this.#open !== null) this.#ended.push({ step: this.#open, ms: nowMs - this.#sinceMs });
    this.#open = null;
    this.#sinceMs = nowMs;
    return this.#ended;
  }
}
