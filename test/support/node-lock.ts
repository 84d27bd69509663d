/**
 * Agents that are started right after another of the same node was killed: the session of that one
 * may hold the lock of the node for a moment, and then the new one ends with NODE_LOCKED.
 */
import * as assert from 'uvu/assert';
import type { Fleet } from './fleet.ts';
import type { FleetAgent } from './fleet-agent.ts';
import type { NodeName } from './fleet-options.ts';
import { until } from './until.ts';

/** An agent that got the lock, by the log line that shows it. */
export async function startLocked(
  fleet: Fleet,
  node: NodeName,
  shows: RegExp,
  failpoints = '',
): Promise<FleetAgent> {
  const attempt = async (): Promise<FleetAgent> => {
    const agent = fleet.spawnAgent(node, failpoints);
    await agent.logged(new RegExp(`${shows.source}|NODE_LOCKED`));
    if (isRefused(agent)) await agent.exitCode();
    return agent;
  };
  return until(`the lock of ${node}`, attempt, { reached: (agent) => !isRefused(agent) });
}

/** An agent that got the lock and was killed by its failpoint. */
export async function diesAt(fleet: Fleet, node: NodeName, failpoint: string): Promise<void> {
  const attempt = async (): Promise<FleetAgent> => {
    const agent = fleet.spawnAgent(node, failpoint);
    const code = await agent.exitCode();
    if (!isRefused(agent)) assert.is(code, null, `${failpoint} was not reached: ${agent.log}`);
    return agent;
  };
  await until(`the lock of ${node}`, attempt, { reached: (agent) => !isRefused(agent) });
}

function isRefused(agent: FleetAgent): boolean {
  return agent.log.includes('NODE_LOCKED');
}
