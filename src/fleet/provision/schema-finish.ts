/**
 * Builds the post-data section of a follower's schema, once its rows are exact, beside its applier:
 * indexes, constraints, triggers and the rest, one after the other in a session of their own. What
 * this node's Postgres refuses is logged and retried at growing intervals; meanwhile the node
 * follows. The end of the follower ends the building; the next start continues with the statement
 * that was running.
 */
import { stoppedDuringSchema } from '../../errors/ownership.ts';
import type { Follower } from '../../follower/follower.ts';
import {
  type BuildOptions,
  type OpenBuild,
  openBuild,
  type Refusal,
  tryPostData,
} from '../../follower/schema/schema-build.ts';
import { pauseAfterRefusalMs } from '../../follower/schema/schema-refusal.ts';
import type { Releasers } from '../../lifecycle.ts';
import type { Logger } from '../../logger.ts';
import { progressLogEveryMs, sleepOrAbort } from '../../waiting.ts';
import type { Cluster } from '../cluster.ts';
import type { NodeAccess } from '../node/node-access.ts';
import { refusedTexts } from '../status/progress-text.ts';

/** Becoming exact takes from seconds to hours. */
const exactPollMs = 500;

export function schemaBuildOptions({ around }: Cluster, node: string): BuildOptions {
  const { log, nowMs, sleep } = around;
  let loggedMs = nowMs();
  return {
    node,
    nowMs,
    sleep,
    onProgress: ({ phase, done, total }) => {
      if (done < total && nowMs() - loggedMs < progressLogEveryMs) return;
      loggedMs = nowMs();
      log.info({ node, phase, done, total }, 'building the schema');
    },
    onMissingRoles: (roles) => {
      log.warn(
        { node, roles },
        'owners and privileges were left out: these roles do not exist here',
      );
    },
    onNotValid: (foreignKeys) => {
      log.warn(
        { node, foreignKeys },
        'created NOT VALID: rows here refer to rows that this node does not have',
      );
    },
  };
}

export class SchemaFinishing {
  readonly #node: NodeAccess;
  readonly #releasers: Releasers;
  readonly #follower: Follower;
  readonly #signal: AbortSignal;
  #trying: Promise<OpenBuild | null> | null = null;

  constructor(node: NodeAccess, releasers: Releasers, follower: Follower, signal: AbortSignal) {
    this.#node = node;
    this.#releasers = releasers;
    this.#follower = follower;
    this.#signal = signal;
  }

  /** Ends once nothing is left, or with the follower. */
  async run(): Promise<void> {
    const { client, cluster, name } = this.#node;
    const { log, nowMs, random, sleep } = cluster.around;
    const open = await openBuild(client);
    if (open === null) return;
    const { phase, done, total } = open;
    log.info({ node: name, phase, done, total }, 'building the schema');
    while (!this.#isExact) {
      if (this.#signal.aborted) return;
      await sleep(exactPollMs);
    }
    for (let tries = 1; !this.#signal.aborted; tries += 1) {
      const beganMs = nowMs();
      const left = await this.#try();
      if (left === null || this.#signal.aborted) return;
      await sleepOrAbort(pauseAfterRefusalMs(tries, nowMs() - beganMs, random), this.#signal);
    }
  }

  get #isExact(): boolean {
    const { exact, position } = this.#follower;
    return exact && position.unfinished.length === 0;
  }

  /** Builds what is left, also while rows are missing; gives what this node refuses. */
  async now(): Promise<OpenBuild | null> {
    const left = await this.#try();
    if (!this.#signal.aborted) return left;
    throw stoppedDuringSchema(this.#node.name);
  }

  /** Gives what is left. Concurrent callers share one attempt. */
  #try(): Promise<OpenBuild | null> {
    this.#trying ??= this.#build().finally(() => {
      this.#trying = null;
    });
    return this.#trying;
  }

  async #build(): Promise<OpenBuild | null> {
    const { cluster, name } = this.#node;
    const { log } = cluster.around;
    // A session of its own: the applier works meanwhile.
    const client = await cluster.openSession(this.#releasers, name, 'schema');
    const end = (): void => {
      // A long statement is abandoned: its transaction is rolled back.
      client
        .end()
        .catch((error: unknown) =>
          log.debug({ node: name, error }, 'closing the session of the schema failed'),
        );
    };
    this.#signal.addEventListener('abort', end);
    try {
      const options = schemaBuildOptions(cluster, name);
      const left = await tryPostData(client, { ...options, signal: this.#signal });
      if (this.#signal.aborted) return left;
      if (left === null) log.info({ node: name }, 'the schema is complete');
      else logRefused(log, name, left.refused);
      return left;
    } catch (error) {
      if (!this.#signal.aborted) throw error;
      return null;
    } finally {
      this.#signal.removeEventListener('abort', end);
      end();
    }
  }
}

function logRefused(log: Logger, node: string, refused: readonly Refusal[]): void {
  const code = 'SCHEMA_BUILD_FAILED';
  log.warn({ node, code, refused: refusedTexts(refused) }, 'this node refuses parts of the schema');
}
