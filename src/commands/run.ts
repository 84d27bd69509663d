/**
 * `understudy run <node>… [--http host:port]`: serves nodes until it is stopped. Node names flow
 * in; one agent per node runs, as leader or follower, whatever the control log says. The first
 * SIGTERM drains, the second ends at once.
 */
import { serveNode } from '../agent/agent.ts';
import { AgentFigures } from '../agent/agent-figures.ts';
import type { Cluster } from '../agent/cluster.ts';
import { fleetStatus } from '../agent/fleet-status.ts';
import { WalWatch } from '../agent/wal-watch.ts';
import { exitCodes, UnderstudyError } from '../errors.ts';
import { type ListenAddress, parseListenAddress, startStatusServer } from '../http/server.ts';
import { runUntilStopped } from '../lifecycle.ts';
import { clusterOf } from './cluster-of.ts';
import { type Command, type CommandContext, refuseLaterOption, textOption } from './command.ts';

export interface RunInput {
  /** At least one, each once. */
  readonly nodes: readonly string[];
  readonly http: ListenAddress | null;
}

export const runCommand: Command<RunInput> = {
  name: 'run',
  examples: ['understudy run a', 'understudy run b --http 127.0.0.1:8080', 'understudy run a b c'],
  declare: (verb) => {
    verb.argument('<node...>', 'the nodes this process serves');
    verb.option('--http <address>', 'serve /status, /healthz and /metrics on host:port');
    verb.addOption(verb.createOption('--until <point>', 'of a later version').hideHelp());
  },
  read: (args, options) => {
    refuseLaterOption(options, 'until', '--until');
    const twice = args.find((node, at) => args.indexOf(node) !== at);
    if (twice !== undefined) {
      throw new UnderstudyError('USAGE', `node ${twice} is named twice`, 'Name each node once.');
    }
    const http = textOption(options, 'http');
    return { nodes: args, http: http === null ? null : parseListenAddress(http) };
  },
  run: async (context, { nodes, http }) => {
    for (const node of nodes) context.config.requireNode(node);
    const cluster = clusterOf(context);
    const served = nodes.map((node) => serve(context, cluster, node));
    if (http !== null) await serveStatus(context, cluster, served, http);
    const agents = served.map((one) => keepServing(context, cluster, one));
    const results = await Promise.allSettled(agents);
    const failed = results.find((result) => result.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
    return { answer: null, lines: [], exit: exitCodes.ok };
  },
};

/** A node that this process serves. */
interface Served {
  readonly node: string;
  readonly watch: WalWatch;
  readonly figures: AgentFigures;
}

function serve({ now }: CommandContext, cluster: Cluster, node: string): Served {
  const watch = new WalWatch(cluster, node);
  return { node, watch, figures: new AgentFigures(node, now, () => watch.latest) };
}

/**
 * Attempt after attempt until stopped; an attempt that ends by itself begins the next role. A node
 * that has to stop does not take the others of this process with it: one of them may be leading.
 */
async function keepServing(
  context: CommandContext,
  cluster: Cluster,
  { node, watch, figures }: Served,
): Promise<void> {
  const { log, sleep, random, now, signal } = context;
  let served = false;
  const attempt = async (_: AbortSignal, onWorking: () => void): Promise<void> => {
    const onServed = (): void => {
      served = true;
    };
    const events = { onServed, onWorking, figures };
    try {
      while (!signal.aborted) await serveNode(cluster, node, signal, events);
    } catch (error) {
      figures.failed(error);
      throw served ? ownGhost(error) : error;
    }
  };
  const ended = new AbortController();
  const watching = watchWal(context, watch, AbortSignal.any([signal, ended.signal]));
  try {
    await runUntilStopped(attempt, { name: `node ${node}`, signal, log, sleep, random, now });
  } catch (error) {
    log.error({ node, error }, 'this node is not served any more');
    throw error;
  } finally {
    ended.abort();
    await watching;
  }
}

/** Beside the attempts, not within: it has to go on while they fail. */
async function watchWal(
  { log }: CommandContext,
  watch: WalWatch,
  signal: AbortSignal,
): Promise<void> {
  try {
    await watch.run(signal);
  } catch (error) {
    // The stream is worth more than its watch: it goes on, and this is said.
    log.error({ node: watch.node, error }, 'the WAL that the slot keeps is not watched any more');
  }
}

/**
 * After a connection broke on this side only, the server may hold the lock for this agent's own
 * dead session until it notices: an agent that has held the lock waits for it.
 */
function ownGhost(error: unknown): unknown {
  if (!(error instanceof UnderstudyError) || error.code !== 'NODE_LOCKED') return error;
  return new UnderstudyError('POSTGRES_UNREACHABLE', error.message, error.hint, error);
}

async function serveStatus(
  context: CommandContext,
  cluster: Cluster,
  served: readonly Served[],
  address: ListenAddress,
): Promise<void> {
  const server = await startStatusServer({
    listen: address,
    status: () => fleetStatus(cluster),
    health: () => ({ ok: !context.signal.aborted }),
    figures: () => served.map(({ figures }) => figures.read()),
    onError: (error) => context.log.warn({ error }, 'a status could not be answered'),
  });
  context.releasers.push('the HTTP server', () => server.stop());
  context.people(`status at http://${server.address.host}:${server.address.port}/status`);
}
