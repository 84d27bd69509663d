/**
 * A world for the owning state machine: nodes that run it, a control log, a data log whose broker
 * fences and may tear a transaction, and requests that are under way. Flows in: how often what may
 * happen. Flows out: the first world, and for any world its name, by which an explorer knows where
 * it has been.
 */
import { type ClaimState, foldClaim, noClaims } from '../../src/control/claim.ts';
import type { RecordOf } from '../../src/control/control-records.ts';
import {
  type ControlState,
  emptyControlState,
  foldControl,
} from '../../src/control/control-state.ts';
import { notOwning, type Owning } from '../../src/control/owning.ts';

/** Ways to build it wrong; the model has to find each. */
export type Mutation =
  | 'verify-left-out'
  | 'init-before-claim'
  | 'predecessor-unchecked'
  | 'old-nonce-counts'
  | 'last-claim-wins'
  | 'second-init'
  | 'any-epoch-claimed'
  | 'torn-goes-on'
  | 'late-claim-unnoticed';

export type Logged = RecordOf<'claim'> | RecordOf<'nonce'>;

export type Request = { readonly from: number; readonly life: number; readonly ticket: number } & (
  | { readonly kind: 'control'; readonly record: Logged }
  | {
      readonly kind: 'init';
      readonly token: string;
      readonly andThen: readonly Logged[];
      /** The epoch whose drain comes after it, where a node is built to init once too often. */
      readonly drains?: number;
    }
  | { readonly kind: 'drain'; readonly epoch: number }
  | {
      readonly kind: 'begin' | 'row';
      readonly token: string;
      readonly epoch: number;
      readonly claim: string;
    }
);

export interface ModelNode {
  readonly owning: Owning;
  readonly control: ControlState;
  /** How many records of `World.controlLog` it has read. */
  readonly read: number;
  /** Counts the processes of this node: answers to a dead one are lost. */
  readonly life: number;
  readonly token: string | null;
  readonly made: number;
  readonly startsLeft: number;
}

export interface World {
  /** Records which not all nodes have read yet. */
  readonly controlLog: readonly Logged[];
  /** What the whole control log says by the true rules. */
  readonly truth: ClaimState;
  readonly inFlight: readonly Request[];
  /** The producer initialised last: the only one that the data log takes records from. */
  readonly producer: string | null;
  /** The newest epoch begin in the data log. */
  readonly begun: { readonly epoch: number; readonly claim: string } | null;
  /** The epoch of what some partitions hold past the last whole batch or begin. */
  readonly torn: number | null;
  readonly rowsLeft: number;
  readonly faultsLeft: number;
  readonly watches: boolean;
  readonly drainsLook: boolean;
  readonly nodes: readonly ModelNode[];
  readonly mutation: Mutation | null;
  /** The rule that the last step broke. */
  readonly broken: string | null;
}

export interface Budget {
  /** How often each node tries to take the lead, not counting restarts after a crash. */
  readonly starts: readonly number[];
  /** Whether a claim is under way that node 1 made in an earlier topic of the same name. */
  readonly foreignClaim: boolean;
  readonly rows: number;
  readonly faults: number;
  /** Whether nodes look at what they read at once, or only when they verify. */
  readonly watches: boolean;
  /** Whether a drain sees the newest epoch begin. */
  readonly drainsLook: boolean;
}

/** No rule looks at it. */
export const recordTime = '2026-01-01T00:00:00.000Z';

/** Node 0 owns epoch 1 and has not begun it. A foreign claim has a fitting epoch, no more. */
export function firstWorld(budget: Budget, mutation: Mutation | null): World {
  const first: Logged = {
    kind: 'claim',
    id: 'c',
    epoch: 1,
    node: '0',
    predecessor: null,
    time: recordTime,
  };
  const foreign: Logged = { ...first, id: 'foreign', epoch: 2, node: '1', predecessor: 'gone' };
  const late: Request = { kind: 'control', from: 1, life: -1, ticket: -1, record: foreign };
  const nodes = budget.starts.map((startsLeft, index) => ({
    owning: notOwning(String(index)),
    control: foldControl(emptyControlState, [first]),
    read: 0,
    life: 0,
    token: null,
    made: 0,
    startsLeft,
  }));
  return {
    controlLog: [],
    truth: foldClaim(noClaims, first),
    inFlight: budget.foreignClaim ? [late] : [],
    producer: null,
    begun: null,
    torn: null,
    rowsLeft: budget.rows,
    faultsLeft: budget.faults,
    watches: budget.watches,
    drainsLook: budget.drainsLook,
    nodes,
    mutation,
    broken: null,
  };
}

/**
 * Equal for worlds in which the same things can happen: of tickets and tokens only that counts
 * which of them are still valid, so worlds that differ in how they got there are one.
 */
export function nameOf(world: World): string {
  const { controlLog, truth, inFlight, producer, begun, torn } = world;
  const { rowsLeft, faultsLeft, nodes } = world;
  const nodeNames = nodes.map(({ owning, control, token, read, startsLeft }) => {
    const holds = token === null ? 'none' : token === producer;
    return [owning.phase, control.current?.claimId, read, holds, startsLeft];
  });
  const recordName = (record: Logged) =>
    record.kind === 'claim' ? record.id : [record.node, isFresh(world, record)];
  const requestNames = inFlight.map((request) => {
    const { from, kind } = request;
    const what = kind === 'control' ? recordName(request.record) : null;
    const under = 'claim' in request ? [request.claim, request.token === producer] : null;
    return JSON.stringify([from, kind, isAwaited(world, request), what, under]);
  });
  const rest = [truth.current?.claimId, producer !== null, begun, torn, rowsLeft, faultsLeft];
  return JSON.stringify([nodeNames, requestNames.sort(), controlLog.map(recordName), rest]);
}

/**
 * Where nothing can happen any more, the last claim has deposed its predecessor: its node, which
 * runs, must have begun the epoch.
 */
export function restsWithoutLeader({ truth, begun, nodes, watches }: World): boolean {
  const { current } = truth;
  if (!watches || current === null || begun?.epoch === current.epoch) return false;
  const phase = nodes[Number(current.node)]?.owning.phase.kind;
  return phase === 'stepped-down';
}

/** Whether reading this record can still tell its node what it waits for. */
function isFresh(world: World, record: RecordOf<'nonce'>): boolean {
  const { life, owning } = nodeOf(world, Number(record.node));
  const wanted = nonce(owning, life).value;
  if (world.mutation !== 'old-nonce-counts') return record.value === wanted;
  return record.value.split('/')[0] === wanted.split('/')[0];
}

/** Drops what can make no difference any more, so that there are fewer worlds to look at. */
export function settle(world: World): World {
  const matters = (record: Logged) => record.kind === 'claim' || isFresh(world, record);
  const nodes = world.nodes.map((node) => {
    return { ...node, read: world.controlLog.slice(0, node.read).filter(matters).length };
  });
  const inFlight = world.inFlight.filter((request) => {
    if (request.kind === 'control') return matters(request.record);
    if (request.kind === 'init' || isAwaited(world, request)) return true;
    return request.kind !== 'drain' && request.token === world.producer;
  });
  return { ...world, nodes, inFlight, controlLog: world.controlLog.filter(matters) };
}

export function update(world: World, index: number, change: Partial<ModelNode>): World {
  const nodes = world.nodes.map((node, at) => (at === index ? { ...node, ...change } : node));
  return { ...world, nodes };
}

export function nodeOf(world: World, index: number): ModelNode {
  const node = world.nodes[index];
  if (node === undefined) throw new Error(`no node ${index}`);
  return node;
}

/** A record of the control log is awaited by reading it: it can be late, and nothing else. */
export function isAwaited(world: World, { from, life, ticket, kind }: Request): boolean {
  const node = nodeOf(world, from);
  return kind !== 'control' && node.life === life && node.owning.ticket === ticket;
}

export function nonce(owning: Owning, life: number): RecordOf<'nonce'> {
  return { kind: 'nonce', node: owning.node, value: `${life}/${owning.ticket}` };
}
