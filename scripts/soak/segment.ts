/**
 * The life of one cluster: it is created, written to and disturbed by faults, its nodes are
 * compared at points, it may fail over once or twice near its end, and the checker judges it. It
 * takes servers, a seed and a duration, and returns the verdict and counts. A broken invariant, at
 * any time, is thrown as Broken.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Verdict } from '../../test/support/checker/check-fleet.ts';
import { judgeStatus } from '../../test/support/checker/judge-fleet.ts';
import { describe, Findings, type Invariant } from '../../test/support/checker/violation.ts';
import type { NodeName } from '../../test/support/fleet-options.ts';
import { FleetUnderLoad } from '../../test/support/fleet-under-load.ts';
import { between } from '../../test/support/seed.ts';
import type { Stack } from '../../test/support/stack.ts';
import type { Sandbox } from '../sandbox/sandbox.ts';
import { drawFault, type Fault, nodesMet } from './faults.ts';
import { Broken, recovered, refuseEnded, type Scene, serverOf } from './scene.ts';

export interface SegmentParts {
  readonly sandbox: Sandbox;
  readonly stack: Stack;
  readonly seed: number;
  readonly random: () => number;
  readonly partitions: number;
  readonly lastsMs: number;
  /** Aborted by the user. */
  readonly signal: AbortSignal;
  readonly report: (what: string) => void;
}

const pauseMsMax = 1_500;
const comparedEvery = 3;
const atOnceShare = 0.25;
const failoverShare = 0.7;
/** How often status is checked during a fault. */
const askedShare = 0.3;
const secondFailoverShare = 0.4;
/** How long clients stay with a former leader that accepts their writes. */
const stayMsMax = 3_000;

interface AppliedFault {
  readonly fault: Fault;
  readonly nodes: readonly NodeName[];
}

export class Segment {
  readonly run: FleetUnderLoad;
  faultCount = 0;
  failovers = 0;
  comparisons = 0;
  readonly #parts: SegmentParts;
  readonly #scene: Scene;

  private constructor(run: FleetUnderLoad, parts: SegmentParts) {
    this.run = run;
    this.#parts = parts;
    this.#scene = { run, sandbox: parts.sandbox, random: parts.random };
  }

  static async begin(parts: SegmentParts): Promise<Segment> {
    const { stack, partitions, seed } = parts;
    const run = await FleetUnderLoad.start({
      ...{ stack, partitions, seed, nodes: 3, clients: { writers: 1, pauseMs: 30 } },
    });
    return new Segment(run, parts);
  }

  async play(): Promise<Verdict> {
    const { lastsMs, random, signal } = this.#parts;
    await this.#faultsUntil(Date.now() + lastsMs);
    if (random() < failoverShare) {
      await this.#failover();
      await this.#faultsUntil(Date.now() + lastsMs / 6);
      if (random() < secondFailoverShare) await this.#failover();
    }
    signal.throwIfAborted();
    this.#report('comparing everything');
    await recovered(this.#scene);
    const verdict = await this.run.judge();
    if (verdict.violations.length > 0) throw new Broken(describe(verdict.violations));
    return verdict;
  }

  async #faultsUntil(deadlineMs: number): Promise<void> {
    const { random, signal } = this.#parts;
    while (Date.now() < deadlineMs) {
      signal.throwIfAborted();
      await sleep(random() * pauseMsMax);
      refuseEnded(this.#scene);
      await this.#applyFaults();
      signal.throwIfAborted();
      await recovered(this.#scene);
      this.#checkWatchers();
      if (this.faultCount % comparedEvery === 0 && this.run.followers.length > 0) {
        this.#report('comparing at a point');
        await this.#compare();
      }
    }
  }

  /** One fault, or two of different parts, which are undone in the same order. */
  async #applyFaults(): Promise<void> {
    const { random } = this.#parts;
    const chosen = this.#draw();
    this.#report(chosen.map(({ fault, nodes }) => `${fault.name} (${nodes})`).join(' and '));
    for (const { fault, nodes } of chosen) {
      if (fault !== chosen[0]?.fault) await sleep(random() * pauseMsMax);
      this.faultCount += 1;
      await fault.apply(this.#scene, nodes);
    }
    // Without brokers, status knows less.
    const knowsAll = chosen.every(({ fault }) => fault.part !== 'kafka');
    if (knowsAll && random() < askedShare) await this.#checkStatus(chosen);
    for (const { fault, nodes } of chosen) {
      const [least, most] = fault.holdMs;
      await sleep(between(random, least, most));
      await fault.undo(this.#scene, nodes);
    }
  }

  #draw(): readonly AppliedFault[] {
    const { random } = this.#parts;
    const chosen: AppliedFault[] = [];
    const taken = new Set<Fault['part']>();
    const wanted = random() < atOnceShare ? 2 : 1;
    while (chosen.length < wanted) {
      const fault = drawFault(random, taken);
      if (fault === null) break;
      taken.add(fault.part);
      // Sessions cannot be terminated on a server that is down.
      if (fault.part === 'server') taken.add('session');
      if (fault.part === 'session') taken.add('server').add('kafka');
      if (fault.part === 'kafka') taken.add('session');
      chosen.push({ fault, nodes: nodesMet(fault, this.#scene) });
    }
    return chosen;
  }

  /** During a fault, status has to name what is down, and nothing else. */
  async #checkStatus(applied: readonly AppliedFault[]): Promise<void> {
    const { run } = this;
    const isDown = (node: NodeName, what: Fault['down']): boolean =>
      applied.some(({ fault, nodes }) => fault.down === what && nodes.includes(node));
    const known = run.nodes.map((name) => ({
      ...{ name, leads: name === run.leader, writable: null, equal: null },
      serverRuns: !isDown(name, 'server'),
      agentRuns: !isDown(name, 'agent'),
    }));
    const { code, json, stderr } = await run.fleet.cli('status');
    if (code !== 0) throw broken('I7', 'status fails', `${JSON.stringify(json)} ${stderr}`);
    const violations = judgeStatus(json, known);
    if (violations.length === 0) return;
    throw new Broken(`${describe(violations)}\n${JSON.stringify(json)}`);
  }

  /** Another node is promoted; the former leader is dead, or runs and does not know it. */
  async #failover(): Promise<void> {
    const { run } = this;
    const { random } = this.#parts;
    const former = run.leader;
    const [candidate] = random() < 0.5 ? run.followers : [...run.followers].reverse();
    if (candidate === undefined || run.nodes.length < 2) return;
    const how = random();
    const isServerDead = how < 0.35;
    const isAgentDead = how < 0.7;
    this.#report(
      `failover from ${former} to ${candidate}, ${isServerDead ? 'server dead' : 'server alive'}`,
    );
    if (isAgentDead) await run.fleet.agent(former).kill();
    if (isServerDead) await serverOf(this.#scene, former).kill();
    const words = ['failover', candidate, '--allow-data-loss', '--reason', 'soak'] as const;
    const { code, json, stderr } = await run.fleet.cli(...words);
    if (code !== 0) throw broken('I9', 'a failover failed', `${JSON.stringify(json)} ${stderr}`);
    this.failovers += 1;
    run.leader = candidate;
    run.nodes = run.nodes.filter((node) => node !== former);
    run.clients.moveTo(run.place(candidate));
    // Clients that stay write to the former leader; it acknowledges those writes past the base.
    await sleep(random() * stayMsMax);
    await run.clients.cut();
    if (isServerDead) await serverOf(this.#scene, former).start();
    if (isAgentDead) run.fleet.spawnAgent(former);
    const ended = await run.fleet.agent(former).exitCode();
    if (ended !== 3)
      throw broken('I5', 'a former leader continues', `its agent exited with ${ended}`);
    await recovered(this.#scene);
  }

  async #compare(): Promise<void> {
    this.comparisons += 1;
    const difference = await this.run.difference();
    if (difference !== null) throw broken('I3', 'the nodes are not equal', difference);
  }

  #checkWatchers(): void {
    const [sight] = this.run.watchers?.sights ?? [];
    if (sight === undefined) return;
    const invariant = sight.kind === 'back' ? 'I2' : 'I4';
    throw broken(invariant, `${sight.workload} on ${sight.node}`, sight.what);
  }

  #report(what: string): void {
    this.#parts.report(what);
  }
}

function broken(invariant: Invariant, what: string, evidence: string): Broken {
  const findings = new Findings();
  findings.add(invariant, what, evidence);
  return new Broken(describe(findings.violations));
}
