/**
 * The life of one cluster: made, written to, harmed and healed again and again, compared on the
 * way, perhaps promoted once or twice near its end, and judged. Flows in: servers, a seed and a
 * time; flows out: the verdict of the checker and what was done. A broken invariant, on the way or
 * at the end, is thrown as Broken.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Verdict } from '../../test/support/checker/check-fleet.ts';
import { judgeStatus } from '../../test/support/checker/judge-fleet.ts';
import { describe, Findings, type Invariant } from '../../test/support/checker/violation.ts';
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
/** How often status is asked in the middle of a fault. */
const askedShare = 0.3;
const secondFailoverShare = 0.4;
/** How long clients stay at a former leader that takes their writes. */
const stayMsMax = 3_000;

interface Harm {
  readonly fault: Fault;
  readonly nodes: readonly NodeName[];
}

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
    const chosen = this.#draw();
    this.#tell(chosen.map(({ fault, nodes }) => `${fault.name} (${nodes})`).join(' and '));
    for (const { fault, nodes } of chosen) {
      if (fault !== chosen[0]?.fault) await sleep(random() * pauseMsMax);
      this.faultCount += 1;
      await fault.apply(this.#scene, nodes);
    }
    // Where brokers are away, status knows less.
    const knowsAll = chosen.every(({ fault }) => fault.part !== 'kafka');
    if (knowsAll && random() < askedShare) await this.#refuseLies(chosen);
    for (const { fault, nodes } of chosen) {
      const [least, most] = fault.holdMs;
      await sleep(between(random, least, most));
      await fault.heal(this.#scene, nodes);
    }
  }

  #draw(): readonly Harm[] {
    const { random } = this.#parts;
    const chosen: Harm[] = [];
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
    return chosen;
  }

  /** In the middle of a fault, status must name what is gone, and nothing else. */
  async #refuseLies(harms: readonly Harm[]): Promise<void> {
    const { run } = this;
    const isGone = (node: NodeName, what: Fault['gone']): boolean =>
      harms.some(({ fault, nodes }) => fault.gone === what && nodes.includes(node));
    const known = run.nodes.map((name) => ({
      ...{ name, leads: name === run.leader, writable: null, equal: null },
      serverRuns: !isGone(name, 'server'),
      agentRuns: !isGone(name, 'agent'),
    }));
    const { code, json, stderr } = await run.fleet.cli('status');
    if (code !== 0) throw broken('I7', 'status fails', `${JSON.stringify(json)} ${stderr}`);
    const violations = judgeStatus(json, known);
    if (violations.length === 0) return;
    throw new Broken(`${describe(violations)}\n${JSON.stringify(json)}`);
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
    const difference = await this.run.difference();
    if (difference !== null) throw broken('I3', 'the nodes are not equal', difference);
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

function broken(invariant: Invariant, what: string, evidence: string): Broken {
  const findings = new Findings();
  findings.add(invariant, what, evidence);
  return new Broken(describe(findings.violations));
}
