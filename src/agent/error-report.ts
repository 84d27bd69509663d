/**
 * What an agent leaves of its errors in the node's database, for `status`: the last one when an
 * attempt has failed, nothing once the node is in its role. A database that cannot be reached keeps
 * what it has, and the agent goes on: the report decides nothing.
 */
import { hasCode } from '../errors/understudy-error.ts';
import type { Cluster } from '../fleet/cluster.ts';
import { type AgentError, leaveAgentError } from '../fleet/node/agent-error.ts';
import { failureCode } from './agent-figures.ts';

export class ErrorReport {
  readonly #cluster: Cluster;
  readonly #node: string;
  readonly #redact: (text: string) => string;
  /** Whether the database may hold an error: of this process, or of the one before it. */
  #mayBeLeft = true;
  /** The last report; each begins after the one before it, so that the newest stays. */
  #reporting: Promise<void> = Promise.resolve();

  constructor(cluster: Cluster, node: string, redact: (text: string) => string) {
    this.#cluster = cluster;
    this.#node = node;
    this.#redact = redact;
  }

  /** The node leads or follows; nothing waits for the report. */
  inRole(): void {
    if (!this.#mayBeLeft) return;
    this.#mayBeLeft = false;
    void this.#leave(null);
  }

  /** Nothing waits for it: the next attempt may have to find a server that returns. */
  failed(error: unknown): void {
    // The node is another agent's, and so is its error.
    if (hasCode(error, 'NODE_LOCKED')) return;
    const message = error instanceof Error ? error.message : String(error);
    this.#mayBeLeft = true;
    void this.#leave({ code: failureCode(error), message: this.#redact(message) });
  }

  /** Resolves within seconds, once the last report has arrived or failed. */
  settled(): Promise<void> {
    return this.#reporting;
  }

  #leave(error: Pick<AgentError, 'code' | 'message'> | null): Promise<void> {
    this.#reporting = this.#reporting
      .then(() => leaveAgentError(this.#cluster, this.#node, error))
      .catch((failure: unknown) => {
        this.#mayBeLeft = true;
        const { log } = this.#cluster.around;
        log.debug({ node: this.#node, error: failure }, 'could not leave an error for status');
      });
    return this.#reporting;
  }
}
