/**
 * `understudy status [--watch]`: the leader and the position of every node. It reads the databases,
 * the topic and the control log and asks no agent, so that it works when all agents are down.
 */

import { bytesText } from '../change/amounts.ts';
import { exitCodes } from '../errors/codes.ts';
import { FleetWatch } from '../fleet/status/fleet-status.ts';
import type { FleetStatus, NodeStatus } from '../fleet/status/node-status.ts';
import { sleepOrAbort } from '../waiting.ts';
import { tableLines } from './answer.ts';
import { clusterOf } from './cluster-of.ts';
import { type Command, type CommandContext, flagOption, type Outcome } from './command.ts';

interface StatusInput {
  /** Repeats until stopped. */
  readonly watch: boolean;
}

/** As often as points are made by default: more would show the same. */
const watchEveryMs = 1_000;
/** Cursor to the upper left; old text is cleared line by line, so that nothing flickers. */
const home = '\u001b[H';
const clearLine = '\u001b[K';
const clearBelow = '\u001b[J';

export const statusCommand: Command<StatusInput> = {
  name: 'status',
  examples: ['understudy status', 'understudy status --watch', 'understudy --json status'],
  declare: (verb) => {
    verb.option('--watch', 'repeat until stopped; with --json one object on a line');
  },
  read: (_args, options) => ({ watch: flagOption(options, 'watch') }),
  run: async (context, { watch }) => {
    const fleet = new FleetWatch(clusterOf(context));
    context.releasers.push('the connections of the status', () => fleet.close());
    if (watch) return watchFleet(context, fleet);
    const status = await fleet.status();
    return { answer: status, lines: statusLines(status), exit: exitCodes.ok };
  },
};

async function watchFleet(context: CommandContext, fleet: FleetWatch): Promise<Outcome> {
  const isScreen = !context.json && process.stdout.isTTY === true;
  for (let isFirst = true; !context.signal.aborted; isFirst = false) {
    const status = await fleet.status();
    const lines = statusLines(status);
    if (isScreen) context.print(status, onScreen(lines));
    else context.print(status, isFirst ? lines : ['', ...lines]);
    // A watch ends by being stopped: that is no failure.
    await sleepOrAbort(watchEveryMs, context.signal, context.sleep);
  }
  return { answer: null, lines: [], exit: exitCodes.ok };
}

function onScreen(lines: readonly string[]): readonly string[] {
  const [first = '', ...rest] = lines.map((line) => `${line}${clearLine}`);
  return [`${home}${first}`, ...rest.slice(0, -1), `${rest.at(-1) ?? ''}${clearBelow}`];
}

function statusLines(status: FleetStatus): readonly string[] {
  const { cluster, stream, epoch, leader, durability } = status;
  const known = (value: string | number | null): string => (value === null ? '-' : String(value));
  const head =
    `cluster ${cluster}  epoch ${known(epoch)}  leader ${known(leader)}  ` +
    `durability ${known(durability)}  stream ${known(stream)}`;
  const table = tableLines(
    ['NODE', 'ROLE', 'STATE', 'LSN', 'LAG', 'EXACT', 'PROMOTABLE', 'KEPT WAL'],
    status.nodes.map((node) => [
      node.name,
      node.role,
      node.state,
      node.lsn,
      lagText(node),
      yesNo(node.exact),
      yesNo(node.promotable),
      node.slot?.retainedBytes == null ? null : bytesText(node.slot.retainedBytes),
    ]),
  );
  return [head, '', ...table, ...reasonLines(status.nodes)];
}

/** A reason that holds for every node is printed once. */
function reasonLines(nodes: readonly NodeStatus[]): readonly string[] {
  const [first] = nodes;
  const shared = (first?.why ?? []).filter((why) => nodes.every((node) => node.why.includes(why)));
  const own = nodes.flatMap(({ name, why }) =>
    why.filter((reason) => !shared.includes(reason)).map((reason) => `${name}: ${reason}`),
  );
  const lines = nodes.length > 1 ? [...shared, ...own] : [...(first?.why ?? [])];
  return lines.length === 0 ? [] : ['', ...lines];
}

function yesNo(value: boolean | null): string | null {
  if (value === null) return null;
  return value ? 'yes' : 'no';
}

function lagText({ lagBytes, lagMs }: NodeStatus): string | null {
  if (lagBytes === null && lagMs === null) return null;
  if (lagMs === 0 && (lagBytes ?? 0) === 0) return '0';
  // A follower that has applied the whole topic is behind by what the topic lacks: no age is known.
  const parts = [
    ...(lagBytes === null ? [] : [bytesText(lagBytes)]),
    ...(lagMs === null || lagMs === 0 ? [] : [durationText(lagMs)]),
  ];
  return parts.join(', ');
}

/** `250 ms`, `1.2 s`, `3 min`, `2 h`. */
export function durationText(ms: number): string {
  if (ms < 1_000) return `${ms} ms`;
  if (ms < 10_000) return `${(ms / 1_000).toFixed(1)} s`;
  if (ms < 120_000) return `${Math.round(ms / 1_000)} s`;
  if (ms < 7_200_000) return `${Math.round(ms / 60_000)} min`;
  return `${Math.round(ms / 3_600_000)} h`;
}
