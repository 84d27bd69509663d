/**
 * Where loops of one object sleep until something has changed. Flows in: calls of `wake`; flows
 * out: everybody who sleeps goes on and looks again by himself. Who looks and falls asleep without
 * waiting in between misses nothing.
 */
export class WakeUp {
  readonly #sleepers = new Set<() => void>();

  /** Resolves at the next `wake`, or after `maxMs` where that is given. */
  sleep(maxMs: number | null = null): Promise<void> {
    return new Promise((resolve) => {
      const end = (): void => {
        clearTimeout(timer);
        this.#sleepers.delete(end);
        resolve();
      };
      const timer = maxMs === null ? undefined : setTimeout(end, maxMs);
      this.#sleepers.add(end);
    });
  }

  wake(): void {
    for (const end of [...this.#sleepers]) end();
  }
}
