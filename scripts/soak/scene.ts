/**
 * The targets of the faults: the servers of the sandbox and the fleet that runs on them. It finds
 * the server of a node, and waits until the fleet has recovered.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, Findings } from '../../test/support/checker/violation.ts';
import type { NodeName } from '../../test/support/fleet-options.ts';
import type { FleetUnderLoad } from '../../test/support/fleet-under-load.ts';
import type { PostgresServer, Sandbox } from '../sandbox/sandbox.ts';

export interface Scene {
  readonly run: FleetUnderLoad;
  readonly sandbox: Sandbox;
  readonly random: () => number;
}

/** An invariant is broken: the soak ends with it. */
export class Broken extends Error {}

/** The longest pause before a retry of an agent is 30 s; afterwards it has to catch up. */
const recoveryMaxMs = 150_000;
const pollMs = 200;
/** Commits of each client before the fleet counts as recovered. */
const progressMin = 20;

export function serverOf({ sandbox }: Scene, node: NodeName): PostgresServer {
  const server = sandbox.postgres.find(({ name }) => name === node);
  if (server === undefined) throw new Error(`the sandbox has no server ${node}`);
  return server;
}

/** Agents may be killed, but none may end by itself. */
export function refuseEnded({ run }: Scene): void {
  for (const node of run.nodes) {
    const agent = run.fleet.agent(node);
    if (!agent.ended) continue;
    const findings = new Findings();
    findings.add('I9', `the agent of ${node} ended by itself`, agent.log.slice(-2_000));
    throw new Broken(describe(findings.violations));
  }
}

/** Resolves when writes are acknowledged and every follower has them. */
export async function recovered(scene: Scene): Promise<void> {
  const { run } = scene;
  const deadlineMs = Date.now() + recoveryMaxMs;
  await until(scene, deadlineMs, () => run.clients.progress(progressMin, 2_000));
  await until(scene, deadlineMs, () => run.fleet.caughtUp(run.leader, run.nodes));
}

/** Retries while servers restart; an attempt that still fails at the deadline is a violation. */
async function until(
  scene: Scene,
  deadlineMs: number,
  attempt: () => Promise<void>,
): Promise<void> {
  for (;;) {
    refuseEnded(scene);
    try {
      await attempt();
      return;
    } catch (error) {
      if (Date.now() > deadlineMs) {
        const findings = new Findings();
        const what = `the fleet does not recover within ${recoveryMaxMs / 1000} s`;
        findings.add('I9', what, error instanceof Error ? error.message : String(error));
        throw new Broken(describe(findings.violations));
      }
    }
    await sleep(pollMs);
  }
}
