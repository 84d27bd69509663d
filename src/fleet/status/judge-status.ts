/**
 * Judges a fleet: it turns the facts that were read from the databases, the topic and the control
 * log, or the reasons why they could not be read, into one object for programs and people. What is
 * unknown is null and has its reason in `why`: nothing is guessed. Pure.
 */
import type { NodeIdentity } from '../../catalog/understudy-schema.ts';
import { compareEpochLsn, type EpochLsn, formatEpochLsn } from '../../change/position.ts';
import { ownerOf } from '../../control/claim.ts';
import type { RecordOf } from '../../control/control-records.ts';
import type { ControlState } from '../../control/control-state.ts';
import { servedElsewhere } from '../node/judge-belonging.ts';
import {
  closedTo,
  comesBack,
  errorOf,
  leaderLag,
  noAgent,
  notValidOf,
  retryText,
  whyNotStreaming,
} from './agent-reasons.ts';
import { damageStatus } from './damage-status.ts';
import type { DatabaseFacts, FleetFacts, Found } from './fleet-facts.ts';
import { changesNotCarried, partitionsMissing, whyNotPromotable } from './judge-promotable.ts';
import {
  delayText,
  isAtEnd,
  isStreaming,
  isTooYoung,
  type LogEnds,
  lagBytes,
  lagMs,
  newestText,
} from './lag.ts';
import type { FleetStatus, NodeState, NodeStatus } from './node-status.ts';
import {
  backfillingText,
  backfillText,
  buildingText,
  openBuildTexts,
  rebuildText,
  schemaChangeTexts,
  unfinishedStatus,
} from './progress-text.ts';
import { slotReport, slotsLeftOn } from './retained-wal.ts';

interface Fleet extends LogEnds {
  readonly facts: FleetFacts;
  readonly control: ControlState | null;
  readonly owner: { readonly node: string; readonly epoch: number } | null;
  readonly damage: string | null;
  /** Why the leader publishes no more, for good, where its database says so. */
  readonly lostSlot: readonly string[];
  /** Why parts of the fleet are not known. */
  readonly blind: readonly string[];
}

/** The facts by which all nodes are judged. */
function fleetOf(facts: FleetFacts): Fleet {
  const control = facts.control.kind === 'found' ? facts.control.value : null;
  const owner = control === null ? null : ownerOf(control);
  const [damage] = control === null ? [] : control.openDamage.values();
  return {
    facts,
    nowMs: facts.nowMs,
    control,
    newest: facts.topic.kind === 'found' ? facts.topic.value : null,
    owner,
    leaderWal: leaderWalOf(facts, control, owner?.node ?? null),
    damage: damage === undefined ? null : damage.reason,
    lostSlot: lostSlotOf(facts, owner?.node ?? null),
    blind: [...new Set([facts.control, facts.topic].flatMap(reasonsOf))],
  };
}

function reasonsOf(part: Found<unknown>): readonly string[] {
  return part.kind === 'missing' ? [part.reason] : [];
}

/** Of the leader that the control log names, while its database says that it leads. */
function lostSlotOf({ nodes }: FleetFacts, owner: string | null): readonly string[] {
  const database = nodes.find(({ name }) => name === owner)?.database;
  if (database?.kind !== 'found' || database.value.identity?.role !== 'leader') return [];
  return slotReport(database.value.slots).lost;
}

/** Without the control log, the newest node whose database is a leader's: enough to measure lag. */
function leaderWalOf(
  { nodes }: FleetFacts,
  control: ControlState | null,
  owner: string | null,
): EpochLsn | null {
  const leading = nodes.flatMap(({ name, database }) => {
    if (database.kind === 'missing' || (control !== null && name !== owner)) return [];
    const { identity, walLsn } = database.value;
    const isLeader = identity?.role === 'leader' && walLsn !== null;
    return isLeader ? [{ epoch: identity.epoch, lsn: walLsn }] : [];
  });
  return leading.sort(compareEpochLsn).at(-1) ?? null;
}

type NodeVerdict = Omit<NodeStatus, 'schemaFormat'>;

export function judgeStatus(facts: FleetFacts): FleetStatus {
  const fleet = fleetOf(facts);
  const { control, owner } = fleet;
  const found = facts.nodes.map(({ database }) =>
    database.kind === 'found' ? database.value.identity : null,
  );
  const known = found.find((identity) => identity?.cluster === facts.cluster);
  return {
    cluster: facts.cluster,
    stream: control?.stream?.streamId ?? known?.streamId ?? null,
    epoch: control?.current?.epoch ?? null,
    leader: owner?.node ?? null,
    durability: control === null ? null : (control.durability?.durability ?? 'async'),
    topic: facts.topic.kind === 'found' ? facts.topicName : null,
    unfinished:
      fleet.newest === null ? null : (fleet.newest.unfinished ?? []).map(unfinishedStatus),
    damage: control === null ? null : damageStatus(control),
    nodes: facts.nodes.map((node) => {
      const known = node.database.kind === 'found' ? node.database.value.schemaFormat : null;
      return { ...nodeStatus(fleet, node), schemaFormat: known ?? null };
    }),
  };
}

/** Whether there is no cluster yet: then a status is refused with NOT_INITIALISED. */
export function isUninitialised({ control, nodes }: FleetFacts): boolean {
  const hasStream = control.kind === 'found' && control.value.stream !== null;
  const isEmpty = (database: Found<DatabaseFacts>): boolean =>
    database.kind === 'found' && database.value.identity === null;
  return !hasStream && nodes.length > 0 && nodes.every(({ database }) => isEmpty(database));
}

function nodeStatus(fleet: Fleet, node: FleetFacts['nodes'][number]): NodeVerdict {
  const { name, database, delayMs = 0 } = node;
  const detached = fleet.control?.detached.get(name);
  if (detached !== undefined) return detachedStatus(fleet, name, database, detached);
  if (database.kind === 'missing') return downStatus(fleet, name, database.reason);
  const { identity } = database.value;
  const { cluster } = fleet.facts;
  const elsewhere = servedElsewhere(cluster, name, database.value, fleet.control);
  if (elsewhere !== null) return strangerStatus(fleet, name, elsewhere);
  if (identity === null) {
    const isKnown = fleet.control?.stream != null;
    const why = isKnown ? `understudy run ${name}` : 'understudy init';
    return strangerStatus(fleet, name, `not initialised: ${why}`);
  }
  if (identity.cluster !== cluster || identity.name !== name) {
    const why = `the database is node ${identity.name} of cluster ${identity.cluster}`;
    return strangerStatus(fleet, name, why);
  }
  const stream = fleet.control?.stream?.streamId ?? identity.streamId;
  if (identity.streamId !== stream) {
    return strangerStatus(fleet, name, `the database belongs to the stream ${identity.streamId}`);
  }
  const facts = { ...database.value, identity };
  if (identity.role === 'leader') return leaderStatus(fleet, name, facts);
  return followerStatus(fleet, name, facts, delayMs);
}

/** The state of its database since then does not matter here. */
function detachedStatus(
  fleet: Fleet,
  name: string,
  database: Found<DatabaseFacts>,
  { at }: RecordOf<'detach'>,
): NodeVerdict {
  const identity = database.kind === 'found' ? database.value.identity : null;
  const isLeft = identity?.streamId === fleet.control?.stream?.streamId && identity?.name === name;
  const why = `detached at ${formatEpochLsn(at)}: a database of its own`;
  const rest = `its detach is not complete: understudy detach ${name}`;
  return {
    ...strangerStatus(fleet, name, why),
    role: null,
    why: [why, ...(isLeft ? [rest] : []), ...fleet.blind],
  };
}

function roleOf({ owner, control }: Fleet, name: string): 'leader' | 'follower' | null {
  if (control === null || control.current === null) return null;
  return owner?.node === name ? 'leader' : 'follower';
}

const unknownPosition = { lsn: null, lagBytes: null, lagMs: null } as const;

/** Of a former leader that cannot be reached only its database knows whether it follows now. */
function ledBefore({ owner, control }: Fleet, name: string): boolean {
  return owner?.node !== name && (control?.claims.some(({ node }) => node === name) ?? false);
}

function downStatus(fleet: Fleet, name: string, reason: string): NodeVerdict {
  return {
    name,
    role: ledBefore(fleet, name) ? null : roleOf(fleet, name),
    state: 'down',
    ...unknownPosition,
    exact: null,
    promotable: false,
    slot: null,
    agentError: null,
    why: [reason, ...fleet.blind],
  };
}

/** A database that is reachable and no node of this cluster. */
function strangerStatus(fleet: Fleet, name: string, why: string): NodeVerdict {
  return {
    name,
    role: roleOf(fleet, name),
    state: 'stopped',
    ...unknownPosition,
    exact: null,
    promotable: false,
    slot: null,
    agentError: null,
    why: [why, ...fleet.blind],
  };
}

type Member = DatabaseFacts & { readonly identity: NodeIdentity };

function leaderStatus(fleet: Fleet, name: string, member: Member): NodeVerdict {
  const { identity, walLsn } = member;
  const { owner, control, blind } = fleet;
  const slot = slotReport(member.slots);
  const lsn = walLsn === null ? null : formatEpochLsn({ epoch: identity.epoch, lsn: walLsn });
  if (control !== null && control.current === null) {
    return strangerStatus(fleet, name, 'init did not end: no node leads the cluster');
  }
  if (control !== null && owner?.node !== name) {
    const since = ` of epoch ${control.current?.epoch ?? ''}`;
    const now =
      owner === null ? 'it released its epoch' : `node ${owner.node} is the leader${since}`;
    const why = `it led epoch ${identity.epoch}; ${now}`;
    return {
      name,
      role: 'follower',
      state: 'fenced',
      lsn,
      lagBytes: null,
      lagMs: null,
      exact: false,
      promotable: false,
      slot: slot.status,
      agentError: errorOf(member),
      why: [
        why,
        comesBack(name),
        ...slot.left,
        ...slotsLeftOn(fleet.facts.nodes, member),
        ...blind,
      ],
    };
  }
  const stopped = whyNotStreaming(name, member);
  return {
    name,
    role: 'leader',
    state: stopped.length > 0 ? 'stopped' : slot.backlog.length > 0 ? 'catching-up' : 'streaming',
    lsn,
    ...leaderLag(member),
    exact: control === null ? null : true,
    promotable: false,
    slot: slot.status,
    agentError: errorOf(member),
    why: [
      ...stopped,
      ...closedTo(member),
      ...schemaChangeTexts(member.schemaChanges ?? []),
      ...slot.backlog,
      ...slot.retention,
      ...damageOf(fleet),
      ...openBuildOf(member),
      ...notValidOf(member),
      ...uncoveredOf(fleet),
      ...backfillOf(fleet),
      ...slotsLeftOn(fleet.facts.nodes, member),
      ...blind,
    ],
  };
}

/** Tables that were created after init: their changes are not published. */
function uncoveredOf({ newest }: Fleet): string[] {
  const tables = newest?.point?.uncovered ?? [];
  return tables.length === 0 ? [] : [`not in the stream: ${tables.join(', ')}`];
}

/** The progress of the leader's agent. */
function backfillOf({ newest, facts }: Fleet): string[] {
  const text = backfillText(newest?.unfinished ?? [], facts.nowMs);
  return text === null ? [] : [text];
}

function damageOf({ damage, facts }: Fleet): readonly string[] {
  const problems = facts.topicProblems ?? [];
  if (damage === null) return problems;
  return [`the topic is damaged, no node can be promoted: ${damage}`, ...problems];
}

function followerStatus(fleet: Fleet, name: string, member: Member, delayMs: number): NodeVerdict {
  const { control, damage, blind, owner } = fleet;
  const { position } = member;
  const role = control === null ? 'follower' : (roleOf(fleet, name) ?? 'follower');
  const { state, why } = followerState(fleet, name, role, member, delayMs);
  const backfilling = backfillingText(position?.unfinished ?? []);
  const isWhole = damage === null && backfilling === null && !isDoubted(member);
  const exact = isExact(member, control !== null, isWhole);
  const known = { topic: fleet.newest, control, nowMs: fleet.nowMs };
  const missing = [
    ...openBuildOf(member),
    ...whyNotPromotable(member, known),
    ...streamEndOf(fleet),
    ...changesNotCarried(control, fleet.owner?.node ?? null),
  ];
  return {
    name,
    role,
    state,
    lsn: position === null ? null : formatEpochLsn(position.at),
    lagBytes: lagBytes(fleet, position),
    lagMs: lagMs(fleet, position),
    exact,
    promotable: role === 'leader' || position === null || missing.length > 0 ? false : exact,
    slot: slotReport(member.slots).status,
    agentError: errorOf(member),
    why: [
      ...why,
      ...(backfilling === null ? [] : [backfilling]),
      ...missing,
      ...partitionsMissing(fleet.facts.nodes, owner, member),
      ...notValidOf(member),
      ...damageOf(fleet),
      ...slotsLeftOn(fleet.facts.nodes, member),
      ...blind,
    ],
  };
}

function isDoubted({ doubts = [] }: Member): boolean {
  return doubts.length > 0;
}

/** What the leader has written since would be lost with a promotion, and it can still be saved. */
function streamEndOf({ owner, lostSlot }: Fleet): string[] {
  return lostSlot.map((why) => `the stream of leader ${owner?.node ?? ''} has ended: ${why}`);
}

function openBuildOf({ openBuild }: Member): string[] {
  return openBuild === null || openBuild === undefined ? [] : openBuildTexts(openBuild);
}

/** A node that is being built is not exact, whatever else is known. */
function isExact({ position, building, rebuild }: Member, isJudged: boolean, isWhole: boolean) {
  if (building != null || rebuild != null) return false;
  return position === null || !isJudged ? null : isWhole;
}

function followerState(
  fleet: Fleet,
  name: string,
  role: 'leader' | 'follower',
  member: Member,
  delayMs: number,
): { readonly state: NodeState; readonly why: readonly string[] } {
  const { agentRuns, position, building, rebuild } = member;
  const absent = agentRuns ? [] : [noAgent(name, member)];
  const isAtEndOfLog = position !== null && lagMs(fleet, position) === 0;
  const built = [
    ...(rebuild == null ? [] : [rebuildText(rebuild)]),
    ...(building == null ? [] : [buildingText(building, isAtEndOfLog)]),
  ];
  const isRebuild = rebuild != null || building?.isRebuild === true;
  const isDamaged = fleet.damage !== null || (isDoubted(member) && built.length === 0);
  if (isDamaged) return { state: 'damaged', why: [...absent, ...built] };
  if (!agentRuns) return { state: 'stopped', why: [...absent, ...built] };
  if (built.length > 0) return { state: isRebuild ? 'rebuilding' : 'bootstrapping', why: built };
  if (role === 'leader') {
    const why = `its promotion to leader of epoch ${fleet.owner?.epoch ?? ''} is not complete`;
    return { state: 'waiting', why: [why] };
  }
  if (position === null) {
    return { state: 'waiting', why: ['it has no position in the stream: init did not end'] };
  }
  const retries = retryText(member);
  if (retries !== null) return { state: 'waiting', why: [retries] };
  if (fleet.newest === null || fleet.lostSlot.length > 0) return { state: 'waiting', why: [] };
  const applying = `it is applying transactions up to ${newestText(fleet)}`;
  if (delayMs > 0) {
    const delayed = delayText(delayMs);
    if (isAtEnd(fleet.newest, position)) return { state: 'streaming', why: [delayed] };
    if (isTooYoung(fleet, delayMs)) return { state: 'waiting', why: [delayed] };
    return { state: 'catching-up', why: [delayed, applying] };
  }
  return isStreaming(fleet, position)
    ? { state: 'streaming', why: [] }
    : { state: 'catching-up', why: [applying] };
}
