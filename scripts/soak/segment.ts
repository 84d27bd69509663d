/**
 * The life of one cluster: made, written to, harmed and healed again and again, compared on the
 * way, perhaps promoted once or twice near its end, and judged. Flows in: servers, a seed and a
 * time; flows out: the verdict of the checker and what was done. A broken invariant, on the way or
 * at the end, is thrown as Broken.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Verdict } from '../../test/support/checker/check-fleet.ts';
import { describe, Findings } from '../../test/support/checker/violation.ts';
import { FaultRun } from '../../test/support/fault-run.ts';
import type { NodeName } from '../../test/support/fleet.ts';
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
  /** Aborted when a person wants it to end. */
  readonly signal: AbortSignal;
  readonly tell: (what: string) => void;
}

const pauseMsMax = 1_500;
const comparedEvery = 3;
const atOnceShare = 0.25;
const failoverShare = 0.7;
const secondFailoverShare = 0.4;
/** How long clients stay at a former leader that takes their writes. */
const stayMsMax = 3_000;

export class Segment {
  readonly run: FaultRun;
  faultCount = 0;
  failovers = 0;
  comparisons = 0;
  readonly #parts: SegmentParts;
  readonly #scene: Scene;

  private constructor(run: FaultRun, parts: SegmentParts) {
    this.run = run;
    this.#parts = parts;
    this.#scene = { run, sandbox: parts.sandbox, random: parts.random };
  }

  static async begin(parts: SegmentParts): Promise<Segment> {
    const { stack, partitions, seed } = parts;
    const run = await FaultRun.begin({
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
    this.#tell('comparing everything');
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
      await this.#harm();
      signal.throwIfAborted();
      await recovered(this.#scene);
      this.#refuseSights();
      if (this.faultCount % comparedEvery === 0 && this.run.followers.length > 0) {
        this.#tell('comparing at a point');
        await this.#compare();
      }
    }
  }

  /** One fault, or two of different parts; the ends come in the order of the beginnings. */
  async #harm(): Promise<void> {
    const { random } = this.#parts;
    const chosen: { readonly fault: Fault; readonly nodes: readonly NodeName[] }[] = [];
    const taken = new Set<Fault['part']>();
    const wanted = random() < atOnceShare ? 2 : 1;
    while (chosen.length < wanted) {
      const fault = drawFault(random, taken);
      if (fault === null) break;
      taken.add(fault.part);
      // Nobody can be asked to end sessions on a server that is away.
      if (fault.part === 'server') taken.add('session');
      if (fault.part === 'session') taken.add('server').add('kafka');
      if (fault.part === 'kafka') taken.add('session');
      chosen.push({ fault, nodes: nodesMet(fault, this.#scene) });
    }
    this.#tell(chosen.map(({ fault, nodes }) => `${fault.name} (${nodes})`).join(' and '));
    for (const { fault, nodes } of chosen) {
      this.faultCount += 1;
      await fault.apply(this.#scene, nodes);
      if (fault === chosen[0]?.fault && chosen.length > 1) await sleep(random() * pauseMsMax);
    }
    for (const { fault, nodes } of chosen) {
      const [least, most] = fault.holdMs;
      await sleep(between(random, least, most));
      await fault.heal(this.#scene, nodes);
    }
  }

  /** Another node takes the lead; the former leader is dead, or alive and unaware. */
  async #failover(): Promise<void> {
    const { run } = this;
    const { random } = this.#parts;
    const former = run.leader;
    const [candidate] = random() < 0.5 ? run.followers : [...run.followers].reverse();
    if (candidate === undefined || run.nodes.length < 2) return;
    const how = random();
    const isServerDead = how < 0.35;
    const isAgentDead = how < 0.7;
    this.#tell(
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
    // Clients that stay write to the former leader; what it acknowledges now is past the base.
    await sleep(random() * stayMsMax);
    await run.clients.cut();
    if (isServerDead) await serverOf(this.#scene, former).start();
    if (isAgentDead) run.fleet.spawnAgent(former);
    const ended = await run.fleet.agent(former).exitCode();
    if (ended !== 3) throw broken('I5', 'a former leader goes on', `its agent ended with ${ended}`);
    await recovered(this.#scene);
  }

  async #compare(): Promise<void> {
    this.comparisons += 1;
    await this.run.compare();
  }

  #refuseSights(): void {
    const [sight] = this.run.watchers.sights;
    if (sight === undefined) return;
    const invariant = sight.kind === 'back' ? 'I2' : 'I4';
    throw broken(invariant, `${sight.workload} on ${sight.node}`, sight.what);
  }

  #tell(what: string): void {
    this.#parts.tell(what);
  }
}

function broken(invariant: 'I2' | 'I4' | 'I5' | 'I9', what: string, evidence: string): Broken {
  const findings = new Findings();
  findings.add(invariant, what, evidence);
  return new Broken(describe(findings.violations));
}
