/**
 * `understudy run <node>… [--http host:port]`: serves nodes until it is stopped. One agent per node
 * runs, as leader or follower, as the control log determines. The first SIGTERM drains, the second
 * exits at once. With `--until P` it ends by itself once its one node, a follower, is exactly at P.
 */
import { serveNode } from '../agent/agent.ts';
import { AgentFigures } from '../agent/agent-figures.ts';
import { ErrorReport } from '../agent/error-report.ts';
import { Evidence } from '../agent/evidence.ts';
import { FenceWatch } from '../agent/fence-watch.ts';
import type { AttemptEnd } from '../agent/follower-tasks.ts';
import { TopicWatch } from '../agent/topic-watch.ts';
import { WalWatch } from '../agent/wal-watch.ts';
import { type EpochLsn, formatEpochLsn } from '../change/position.ts';
import { exitCodes } from '../errors/codes.ts';
import { hasCode } from '../errors/understudy-error.ts';
import { ownLockRemains } from '../errors/unreachable.ts';
import { nodeNamedTwice, replaceForOneNode, untilForOneNode } from '../errors/usage.ts';
import type { Cluster } from '../fleet/cluster.ts';
import { fleetStatus } from '../fleet/status/fleet-status.ts';
import { readinessOf } from '../http/readiness.ts';
import { type ListenAddress, parseListenAddress, startStatusServer } from '../http/server.ts';
import { Releasers, runUntilStopped } from '../lifecycle.ts';
import { clusterOf } from './cluster-of.ts';
import {
  type Command,
  type CommandContext,
  flagOption,
  type Outcome,
  textOption,
} from './command.ts';
import { type PointReference, parsePointReference, resolvePoint } from './point-reference.ts';

interface RunInput {
  /** At least one, each once. */
  readonly nodes: readonly string[];
  readonly http: ListenAddress | null;
  /** The point at which the one node stops; null is never. */
  readonly until: PointReference | null;
  /** Whether its database may take the place of the one from which the node was served. */
  readonly replace: boolean;
}

/** A label may have been created a moment ago. */
const labelTimeoutMs = 10_000;

export const runCommand: Command<RunInput> = {
  name: 'run',
  examples: [
    'understudy run a',
    'understudy run b --http 127.0.0.1:8080',
    'understudy run b --until before-deploy',
    'understudy run a --replace',
    'understudy run a b c',
  ],
  declare: (verb) => {
    verb.argument('<node...>', 'the nodes this process serves');
    verb.option('--http <address>', 'serve /status, /livez, /readyz and /metrics on host:port');
    verb.option('--until <point>', 'stop the follower exactly at this label or LSN, and exit');
    verb.option('--replace', 'serve the node from this database from now on, not from its former');
  },
  read: (args, options) => {
    const twice = args.find((node, at) => args.indexOf(node) !== at);
    if (twice !== undefined) throw nodeNamedTwice(twice);
    const http = textOption(options, 'http');
    const until = textOption(options, 'until');
    if (until !== null && args.length > 1) throw untilForOneNode();
    const replace = flagOption(options, 'replace');
    if (replace && args.length > 1) throw replaceForOneNode();
    return {
      replace,
      nodes: args,
      http: http === null ? null : parseListenAddress(http),
      until: until === null ? null : parsePointReference(until),
    };
  },
  run: async (context, { nodes, http, until: point, replace }) => {
    for (const node of nodes) context.config.requireNode(node);
    const cluster = clusterOf(context);
    const until = point === null ? null : await resolved(context, cluster, point);
    const served = nodes.map((node) => serve(context, cluster, node));
    if (http !== null) await serveStatus(context, cluster, served, http);
    const agents = served.map((one) => keepServing(context, cluster, one, { until, replace }));
    const ended = new AbortController();
    const watching = watchTopics(context, cluster, AbortSignal.any([context.signal, ended.signal]));
    const results = await Promise.allSettled(agents);
    ended.abort();
    await watching;
    const failed = results.find((result) => result.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
    return outcomeOf(context, nodes, until, results);
  },
};

async function resolved(
  { signal }: CommandContext,
  cluster: Cluster,
  point: PointReference,
): Promise<EpochLsn> {
  const releasers = new Releasers();
  try {
    return await resolvePoint({ releasers, signal }, cluster, point, labelTimeoutMs);
  } finally {
    await releasers.close();
  }
}

/** A process that is stopped before the node reached `until` fails. */
function outcomeOf(
  { signal }: CommandContext,
  [node = '']: readonly string[],
  until: EpochLsn | null,
  [result]: readonly PromiseSettledResult<AttemptEnd>[],
): Outcome {
  const end = result?.status === 'fulfilled' ? result.value : 'next';
  if (until === null || end === 'detached') {
    return { answer: null, lines: [], exit: exitCodes.ok };
  }
  if (end === 'next') throw signal.reason;
  const lsn = formatEpochLsn(until);
  const lines = [`node ${node} is at ${lsn}, and its agent has stopped`];
  return { answer: { node, lsn, reached: true }, lines, exit: exitCodes.ok };
}

/** A node that this process serves. */
interface Served {
  readonly node: string;
  readonly watch: WalWatch;
  readonly figures: AgentFigures;
}

function serve({ now }: CommandContext, cluster: Cluster, node: string): Served {
  const watch = new WalWatch(cluster, node);
  return { node, watch, figures: new AgentFigures(node, now, watch) };
}

/**
 * Runs attempts until stopped; after one that ends by itself the node begins its next role. A node
 * that has to stop does not stop the others of this process: one of them may be leading.
 */
async function keepServing(
  context: CommandContext,
  cluster: Cluster,
  { node, watch, figures }: Served,
  { until, replace }: { readonly until: EpochLsn | null; readonly replace: boolean },
): Promise<AttemptEnd> {
  const { log, sleep, random, now, signal } = context;
  let served = false;
  const report = new ErrorReport(cluster, node, (text) => context.config.redact(text));
  let end: AttemptEnd = 'next';
  const evidence = new Evidence(now);
  const attempt = async (_: AbortSignal, onWorking: () => void): Promise<void> => {
    const onServed = (): void => {
      served = true;
    };
    const onRole = (): void => {
      onWorking();
      report.inRole();
    };
    const events = { onServed, onWorking: onRole, figures, evidence };
    try {
      while (!signal.aborted && end === 'next') {
        // Once: what replaces this database later is not to be replaced by it.
        const mayReplace = replace && !served;
        end = await serveNode(cluster, node, signal, events, { until, mayReplace });
        figures.onEnded();
      }
    } catch (error) {
      figures.onFailed(error);
      report.failed(error);
      throw served && hasCode(error, 'NODE_LOCKED') ? ownLockRemains(error) : error;
    }
  };
  const ended = new AbortController();
  const fence = new FenceWatch(cluster, node);
  const stopping = AbortSignal.any([signal, ended.signal]);
  const watching = Promise.all([
    keepWatching(
      context,
      node,
      watch.run(stopping),
      'stopped watching the WAL that the slot keeps',
    ),
    keepWatching(context, node, fence.run(stopping), 'stopped watching the write guard'),
  ]);
  const loop = { name: `node ${node}`, signal, log, sleep, random, now, probes: isServerDown };
  try {
    await runUntilStopped(attempt, loop);
    return end;
  } catch (error) {
    log.error({ node, error }, 'the agent stopped');
    if (error instanceof Error) context.logged(error);
    throw error;
  } finally {
    ended.abort();
    await Promise.all([watching, report.settled()]);
  }
}

/** A server that was down may return with an open guard, or as a leader that is missed. */
function isServerDown(error: unknown): boolean {
  return hasCode(error, 'POSTGRES_UNREACHABLE');
}

/** One for the process: the topics are those of all its nodes. */
async function watchTopics(
  { log }: CommandContext,
  cluster: Cluster,
  signal: AbortSignal,
): Promise<void> {
  try {
    await new TopicWatch(cluster).run(signal);
  } catch (error) {
    // The stream does not depend on its watch and continues.
    log.error({ error }, 'stopped watching the settings of the topics');
  }
}

/** Beside the attempts, not within: it has to continue while they fail. */
async function keepWatching(
  { log }: CommandContext,
  node: string,
  watching: Promise<void>,
  message: string,
): Promise<void> {
  try {
    await watching;
  } catch (error) {
    // The stream does not depend on its watches and continues.
    log.error({ node, error }, message);
  }
}

async function serveStatus(
  context: CommandContext,
  cluster: Cluster,
  served: readonly Served[],
  address: ListenAddress,
): Promise<void> {
  const figures = () => served.map((one) => one.figures.read());
  const server = await startStatusServer({
    listen: address,
    status: () => fleetStatus(cluster),
    health: () => ({ ok: !context.signal.aborted }),
    readiness: () => readinessOf(figures(), context.signal.aborted),
    figures,
    onError: (error) => context.log.warn({ error }, 'could not answer a request for the status'),
  });
  context.releasers.push('the HTTP server', () => server.stop());
  const { host, port } = server.address;
  context.log.info({ address: `http://${host}:${port}/status` }, 'serving the status');
}
