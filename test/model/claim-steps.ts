/**
 * What can happen next in a world of nodes that want to own an epoch. Flows in: a world. Flow out:
 * all worlds one step later, and the rule that a step broke. Nothing here knows how a node decides:
 * it is judged by what lands in the logs.
 *
 * Requests land in any order and as late as they like, also after their sender timed out or died.
 * A pause is that nothing of a node happens while others go on, so it needs no step of its own.
 */

import { zeroLsn } from '../../src/change/lsn.ts';
import { foldClaim } from '../../src/control/claim.ts';
import type { RecordOf } from '../../src/control/control-records.ts';
import { type ControlState, foldControl } from '../../src/control/control-state.ts';
import {
  type Drained,
  notOwning,
  type Owning,
  type OwningAction,
  type OwningEvent,
  stepOwning,
} from '../../src/control/owning.ts';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { foundAtEnd } from '../../src/fleet/promotion/own-epoch.ts';
import type { StreamRecord } from '../../src/topic/records/stream-record.ts';
import { place } from '../support/builders.ts';
import {
  isAwaited,
  type Logged,
  type Mutation,
  nodeOf,
  nonce,
  type Request,
  recordTime,
  settle,
  update,
  type World,
} from './claim-world.ts';

/** Every world one step later. */
export function nextWorlds(world: World): World[] {
  const worlds = world.inFlight.flatMap((request, index) => {
    const rest = { ...world, inFlight: world.inFlight.toSpliced(index, 1) };
    const timedOut =
      world.faultsLeft > 0 && isAwaited(world, request) ? [timeOut(world, request)] : [];
    return [...land(rest, request), ...timedOut];
  });
  for (const [index, node] of world.nodes.entries()) {
    if (node.read < world.controlLog.length) worlds.push(readOne(world, index));
    const { kind } = node.owning.phase;
    if (node.startsLeft > 0 && (kind === 'idle' || kind === 'stepped-down')) {
      const started = update(world, index, { startsLeft: node.startsLeft - 1 });
      const mayClaim = (node.control.current?.epoch ?? 0) + 1;
      worlds.push(feed(started, index, { kind: 'start', mayClaim }));
    }
    if (world.faultsLeft > 0 && kind !== 'idle') worlds.push(...disturb(world, index));
  }
  return worlds.map(settle);
}

/** A process dies, its producer fails by itself, or it asks anew because a nonce is late. */
function disturb(world: World, index: number): World[] {
  const { owning, life, startsLeft } = nodeOf(world, index);
  const { ticket, phase, node } = owning;
  const hit = { ...world, faultsLeft: world.faultsLeft - 1 };
  const reborn = { owning: notOwning(node), life: life + 1, token: null };
  const worlds = [update(hit, index, { ...reborn, startsLeft: startsLeft + 1 })];
  if (phase.kind === 'stepped-down') return worlds;
  worlds.push(feed(hit, index, { kind: 'failed', ticket }));
  const waits = phase.kind === 'checking' || phase.kind === 'verifying';
  return waits ? [...worlds, act(hit, index, { kind: 'verify', ticket })] : worlds;
}

/** The sender gives up; the request may land all the same, later. */
function timeOut(world: World, { from, ticket }: Request): World {
  return feed({ ...world, faultsLeft: world.faultsLeft - 1 }, from, { kind: 'failed', ticket });
}

function land(world: World, request: Request): World[] {
  const { from, ticket } = request;
  switch (request.kind) {
    case 'control':
      return [append(world, request.record)];
    case 'init':
      return [landInit(world, request)];
    case 'drain': {
      const { control } = nodeOf(world, from);
      const found = atEnd(world, request.epoch);
      if (found === null) return [answer(world, request, { kind: 'failed', ticket })];
      return [answer(world, request, { kind: 'drained', ticket, found, control })];
    }
    case 'begin':
    case 'row':
      return [landRecord(world, request), ...tear(world, request)];
  }
}

function append(world: World, record: Logged): World {
  const truth = foldClaim(world.truth, record);
  return { ...world, truth, controlLog: [...world.controlLog, record] };
}

function landInit(world: World, request: Extract<Request, { kind: 'init' }>): World {
  const { from, life, ticket, token, andThen, drains } = request;
  const won = world.truth.claims.some(({ node }) => node === String(from));
  const broken = won ? world.broken : 'a node that never won a claim fenced the owner';
  const fenced = { ...world, producer: token, broken };
  // A producer whose init was answered too late was thrown away; nobody writes with it.
  if (!isAwaited(world, request)) return fenced;
  const inited = update(fenced, from, { token });
  if (drains !== undefined)
    return send(inited, { kind: 'drain', from, life, ticket, epoch: drains });
  const late = andThen.map((record) => ({ kind: 'control', from, life, ticket, record }) as const);
  if (late.length > 0) return { ...inited, inFlight: [...inited.inFlight, ...late] };
  return feed(inited, from, { kind: 'inited', ticket });
}

/**
 * What the drain of an epoch makes of the data log, by the rule of src; null where it refuses. That
 * it refuses a log that holds a newer epoch is a second net: where a read may be stale, the
 * verification has to do without it.
 */
function atEnd(world: World, epoch: number): Drained | null {
  const { begun, torn, mutation, drainsLook } = world;
  if (!drainsLook && begun !== null && begun.epoch > epoch) return 'not-begun';
  const at = begun === null ? null : { epoch: begun.epoch, lsn: zeroLsn };
  const checkpoint = at === null ? null : { at, nextOffsets: [] };
  const pastCheckpoint = torn === null ? [] : [strayOf(torn)];
  try {
    const end = {
      checkpoint,
      point: null,
      begin: null,
      pastCheckpoint,
      unhealed: null,
      unfinished: [],
    };
    const found = foundAtEnd(end, epoch);
    if (found !== 'over' || mutation !== 'torn-goes-on') return found;
    return begun?.epoch === epoch ? 'begun' : 'not-begun';
  } catch (error) {
    if (error instanceof UnderstudyError && error.code === 'LOST_LEADERSHIP') return null;
    throw error;
  }
}

function strayOf(epoch: number): StreamRecord {
  const placed = { partition: 0, offset: 0n, timestampMs: 0, commitTimeMicros: 0n };
  return { kind: 'truncate', relationId: 'public.t', ...placed, position: place(epoch, 0) };
}

/** Half of a batch or of an epoch begin is committed, and its sender hears of an error. */
function tear(world: World, request: RecordRequest): World[] {
  const { token, epoch, ticket } = request;
  if (world.faultsLeft === 0 || token !== world.producer) return [];
  const faultsLeft = world.faultsLeft - 1;
  return [answer({ ...world, faultsLeft, torn: epoch }, request, { kind: 'failed', ticket })];
}

type RecordRequest = Extract<Request, { kind: 'begin' | 'row' }>;

function landRecord(world: World, request: RecordRequest): World {
  const { from, ticket, token, epoch, claim, kind } = request;
  if (token !== world.producer) return answer(world, request, { kind: 'failed', ticket });
  const taken = { ...world, broken: ruleBroken(world, request) ?? world.broken };
  if (kind === 'begin') {
    const begun = { ...taken, begun: { epoch, claim }, torn: null };
    return answer(begun, request, { kind: 'begun', ticket });
  }
  return isAwaited(world, request) ? sendRow(taken, from) : taken;
}

/** What must never land in the data log, judged by the logs alone. */
function ruleBroken({ begun, torn, truth }: World, request: RecordRequest): string | null {
  const { epoch, claim, kind } = request;
  if (begun !== null && epoch < begun.epoch) return 'a stale record after a newer epoch begin';
  if (begun?.epoch === epoch && begun.claim !== claim) return 'two owners in one epoch';
  if (!truth.claims.some(({ id }) => id === claim)) return 'a record of a claim that was not valid';
  if (torn === epoch) return `a ${kind} after a torn one, which nothing voids`;
  if (kind === 'row' && begun?.epoch !== epoch) return 'a batch before its epoch begin';
  return null;
}

function answer(world: World, { from, life }: Request, event: OwningEvent): World {
  return nodeOf(world, from).life === life ? feed(world, from, event) : world;
}

function readOne(world: World, index: number): World {
  const node = nodeOf(world, index);
  const record = world.controlLog[node.read];
  if (record === undefined) throw new Error('read past the end');
  const control = believe(world.mutation, node.control, record);
  const read = update(world, index, { control, read: node.read + 1 });
  const oldest = Math.min(...read.nodes.map((each) => each.read));
  const nodes = read.nodes.map((each) => ({ ...each, read: each.read - oldest }));
  const trimmed = { ...read, nodes, controlLog: world.controlLog.slice(oldest) };
  const { kind } = node.owning.phase;
  const isBlind =
    world.mutation === 'late-claim-unnoticed' && (kind === 'claiming' || kind === 'stepped-down');
  const notices = world.watches && !isBlind;
  const seen = notices ? feed(trimmed, index, { kind: 'control', control }) : trimmed;
  if (record.kind !== 'nonce' || record.node !== node.owning.node) return seen;
  const [life, nonceTicket] = record.value.split('/').map(Number);
  const ticket = world.mutation === 'old-nonce-counts' ? node.owning.ticket : Number(nonceTicket);
  return life === node.life ? feed(seen, index, { kind: 'verified', ticket, control }) : seen;
}

/** What a node makes of a record; a wrongly built one judges claims in another way. */
function believe(mutation: Mutation | null, state: ControlState, record: Logged): ControlState {
  if (record.kind !== 'claim') return foldControl(state, [record]);
  const { current } = state;
  if (mutation === 'predecessor-unchecked') {
    return foldControl(state, [{ ...record, predecessor: current?.claimId ?? null }]);
  }
  if (mutation === 'last-claim-wins' && current?.epoch === record.epoch) {
    const claims = [...state.claims.slice(0, -1), record];
    const { epoch, node, id: claimId } = record;
    return { ...state, claims, current: { epoch, node, claimId } };
  }
  return foldControl(state, [record]);
}

function feed(world: World, index: number, event: OwningEvent): World {
  const before = nodeOf(world, index).owning;
  const { owning, actions } = stepOwning(asked(world, before, event), event);
  const unasked = actions.some((action) => isUnasked(before, action));
  const broken = unasked ? 'a claim of an epoch that no request named' : world.broken;
  return actions.reduce(
    (after, action) => act(after, index, action),
    update({ ...world, broken }, index, { owning }),
  );
}

/** The claim that follows a torn batch of the node's own epoch needs no request. */
function isUnasked({ phase }: Owning, action: OwningAction): boolean {
  if (action.kind !== 'claim' || phase.kind !== 'checking') return false;
  return action.claim.epoch !== phase.mayClaim;
}

/** A wrongly built node takes a request for one epoch as one for whatever comes next. */
function asked({ mutation }: World, owning: Owning, event: OwningEvent): Owning {
  const { phase } = owning;
  if (mutation !== 'any-epoch-claimed') return owning;
  if (phase.kind !== 'checking' || event.kind !== 'verified') return owning;
  const mayClaim = (event.control.current?.epoch ?? 0) + 1;
  return { ...owning, phase: { ...phase, mayClaim } };
}

/** Does one action: what it sends is in flight until it lands. */
function act(world: World, index: number, action: OwningAction): World {
  const { owning, life, made } = nodeOf(world, index);
  const mutant = mutated(world, index, action);
  if (mutant !== null) return mutant;
  const from = { from: index, life, ticket: owning.ticket };
  switch (action.kind) {
    case 'claim':
      return send(world, { ...from, kind: 'control', record: claimOf(owning, action.claim, made) });
    case 'verify':
      return send(world, { ...from, kind: 'control', record: nonce(owning, life) });
    case 'init':
      return send(world, { ...from, kind: 'init', token: `${index}.${made}`, andThen: [] });
    case 'drain':
      return send(world, { ...from, kind: 'drain', epoch: action.epoch });
    case 'begin':
      return send(world, { ...from, kind: 'begin', ...writer(world, index) });
    case 'lead':
      return sendRow(world, index);
    case 'discard-producer':
      return update(world, index, { token: null });
    case 'step-down':
      return world;
  }
}

/** What a wrongly built node does in place of the action; null where it does the same. */
function mutated(world: World, index: number, action: OwningAction): World | null {
  const { owning, control, life, token, made } = nodeOf(world, index);
  const { kind } = owning.phase;
  const { ticket } = owning;
  if (world.mutation === 'verify-left-out' && action.kind === 'verify' && kind === 'verifying') {
    return feed(world, index, { kind: 'verified', ticket, control });
  }
  if (world.mutation === 'second-init' && action.kind === 'drain') {
    // The drain waits for its answer, and goes out as the first thing of the new producer.
    const again = { from: index, life, ticket, token: `${index}.${made}`, andThen: [] };
    return send(world, { kind: 'init', ...again, drains: action.epoch });
  }
  if (world.mutation !== 'init-before-claim') return null;
  if (action.kind === 'claim') {
    const andThen = [claimOf(owning, action.claim, made), nonce(owning, life)];
    return send(world, {
      kind: 'init',
      from: index,
      life,
      ticket,
      token: `${index}.${made}`,
      andThen,
    });
  }
  if (action.kind === 'verify' && kind === 'claiming') return world;
  if (action.kind === 'discard-producer' && kind === 'initing') return world;
  const isInited = action.kind === 'init' && token !== null;
  return isInited ? feed(world, index, { kind: 'inited', ticket }) : null;
}

/** `made` makes claims and producers of a node tell apart. */
function send(world: World, request: Request): World {
  const { made } = nodeOf(world, request.from);
  const counted = update(world, request.from, { made: made + 1 });
  return { ...counted, inFlight: [...world.inFlight, request] };
}

function claimOf(
  { node }: Owning,
  claim: Pick<RecordOf<'claim'>, 'epoch' | 'predecessor'>,
  made: number,
): Logged {
  return { ...claim, kind: 'claim', id: `${node}.${made}`, node, time: recordTime };
}

/** What a node writes under, as it sees it. */
function writer(world: World, index: number) {
  const { owning, control, token } = nodeOf(world, index);
  const epoch = 'epoch' in owning.phase ? owning.phase.epoch : 0;
  return { token: token ?? 'none', epoch, claim: control.claims[epoch - 1]?.id ?? 'none' };
}

function sendRow(world: World, index: number): World {
  if (world.rowsLeft === 0) return world;
  const { owning, life } = nodeOf(world, index);
  const from = { from: index, life, ticket: owning.ticket };
  const fewer = { ...world, rowsLeft: world.rowsLeft - 1 };
  return send(fewer, { kind: 'row', ...from, ...writer(world, index) });
}
