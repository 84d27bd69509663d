/**
 * Builds what a follower's tables still lack, once its rows are exact, beside its applier. Flows
 * in: a follower at work and what its database says is left; flows out: indexes, constraints,
 * triggers and the rest, one after the other in a session of their own. What this node's Postgres
 * refuses is told and tried again, at growing distances: meanwhile the node follows. Whoever stops
 * the follower stops this; the next start goes on with the statement that was running.
 */
import { UnderstudyError } from '../../errors/understudy-error.ts';
import type { Follower } from '../../follower/follower.ts';
import {
  type BuildOptions,
  notValidForeignKeys,
  type OpenBuild,
  openBuild,
  type Refusal,
  tryPostData,
} from '../../follower/schema/schema-build.ts';
import { pauseAfterRefusalMs } from '../../follower/schema/schema-refusal.ts';
import type { Releasers } from '../../lifecycle.ts';
import type { Logger } from '../../logger.ts';
import { sleepOrAbort } from '../../waiting.ts';
import type { Cluster } from '../cluster.ts';
import type { NodeAccess } from '../node/node-access.ts';
import { lackTexts, refusedTexts, requireNothingToCome } from '../status/building-text.ts';
import type { FollowerAtWork } from './follower-at-work.ts';

/** Becoming exact takes from seconds to hours. */
const exactPollMs = 500;

/** Often enough to see that it goes on. */
const progressEveryMs = 10_000;

export function schemaBuildOptions({ around }: Cluster, node: string): BuildOptions {
  const { log, nowMs, sleep } = around;
  let toldMs = nowMs();
  return {
    node,
    nowMs,
    sleep,
    onProgress: ({ phase, done, total }) => {
      if (done < total && nowMs() - toldMs < progressEveryMs) return;
      toldMs = nowMs();
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
        'made NOT VALID: rows here refer to rows that this node does not have',
      );
    },
  };
}

/** `ended` settles when the follower has, with its error, or with that of the building. */
export function followAndBuild(
  node: NodeAccess,
  releasers: Releasers,
  follower: Follower,
): FollowerAtWork {
  const stopping = new AbortController();
  const finishing = new SchemaFinishing(node, releasers, follower, stopping.signal);
  const following = follower.run().finally(() => stopping.abort());
  const building = finishing.run().catch((error: unknown) => {
    follower.stop();
    throw error;
  });
  const ended = Promise.allSettled([following, building]).then((all) => {
    for (const one of all) if (one.status === 'rejected') throw one.reason;
  });
  return { follower, ended, finishSchema: () => finishing.now() };
}

class SchemaFinishing {
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

  /** Builds what is left, whole rows or not; gives what this node refuses. */
  async now(): Promise<OpenBuild | null> {
    const left = await this.#try();
    if (!this.#signal.aborted) return left;
    throw new UnderstudyError(
      'NOT_PROMOTABLE',
      `node ${this.#node.name} stopped following while its schema was being built`,
      'See its log, then ask again.',
    );
  }

  /** What is left. One at a time, whoever asks for it. */
  #try(): Promise<OpenBuild | null> {
    this.#trying ??= this.#build().finally(() => {
      this.#trying = null;
    });
    return this.#trying;
  }

  async #build(): Promise<OpenBuild | null> {
    const { cluster, name } = this.#node;
    const { log } = cluster.around;
    // A session of its own: the applier goes on meanwhile.
    const client = await cluster.openSession(this.#releasers, name, 'schema');
    const end = (): void => {
      // A long statement is given up: its transaction is rolled back.
      client
        .end()
        .catch((error: unknown) => log.debug({ node: name, error }, 'ended the building'));
    };
    this.#signal.addEventListener('abort', end);
    try {
      const options = schemaBuildOptions(cluster, name);
      const left = await tryPostData(client, { ...options, signal: this.#signal });
      if (this.#signal.aborted) return left;
      if (left === null) log.info({ node: name }, 'the schema is whole');
      else tellRefused(log, name, left.refused);
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

function tellRefused(log: Logger, node: string, refused: readonly Refusal[]): void {
  const code = 'SCHEMA_BUILD_FAILED';
  log.warn({ node, code, refused: refusedTexts(refused) }, 'this node refuses parts of the schema');
}

/**
 * What a node lacks for good that is to lead. Where rows from before the stream are missing nobody
 * will bring them any more, and what was left for later is made of what there is.
 */
export async function schemaToLeadWith(
  { name, client, cluster }: Pick<NodeAccess, 'name' | 'client' | 'cluster'>,
  { follower, finishSchema }: FollowerAtWork,
): Promise<readonly string[]> {
  const isWhole = follower.position.unfinished.length === 0;
  const open = isWhole ? await openBuild(client) : await finishSchema();
  requireNothingToCome(name, open);
  const lacks = lackTexts(open, await notValidForeignKeys(client));
  if (lacks.length > 0) {
    cluster.around.log.warn({ node: name, lacks }, 'it will lead without parts of the schema');
  }
  return lacks;
}
