/**
 * Judges whether a cluster may be created: whether its name is free, whether an `init` of these
 * databases did not end and what it left may be removed, or which cluster there is. A cluster that
 * has begun its first epoch, or one of other databases, is never removed. Pure.
 */
import { ownerOf } from '../../control/claim.ts';
import {
  clusterElsewhere,
  clusterExists,
  controlLogUnreadable,
  topicsGone,
  topicsOfNoStream,
} from '../../errors/cluster.ts';
import { type FoundDatabase, judgeBelonging } from '../node/judge-belonging.ts';
import { placeOf } from '../node/judge-database.ts';
import type { TopicsFacts } from '../node/stream-facts.ts';

interface InitFacts {
  readonly cluster: string;
  readonly topic: string;
  readonly topics: TopicsFacts;
  /** Those that could be read; the checks of `init` report the others. */
  readonly databases: readonly FoundDatabase[];
}

/** `remains` are what an init left that did not end: its nodes. */
type InitVerdict =
  | { readonly kind: 'free' }
  | { readonly kind: 'remains'; readonly nodes: readonly string[] };

/** Throws where there is a cluster of this name. */
export function judgeInit({ cluster, topic, topics, databases }: InitFacts): InitVerdict {
  const { changes, control, state } = topics;
  const own = databases.flatMap(({ name, identity }) => {
    return identity?.cluster === cluster && identity.name === name ? [{ ...identity, name }] : [];
  });
  const hasTopics = changes !== null || control !== null;
  if (!hasTopics && own.length === 0) return { kind: 'free' };
  const stream = state?.stream?.streamId ?? null;
  const streams = new Set(own.map(({ streamId }) => streamId));
  if (stream !== null) streams.add(stream);
  // No agent has served a node, and no epoch has begun: nothing was ever in the stream.
  const isUnused = own.every(({ startNumber }) => startNumber === 0n);
  const hasNotBegun = topics.isEmpty && isUnused && topics.unreadable === null;
  if (own.length > 0 && hasNotBegun && streams.size === 1 && (state?.starts.size ?? 0) === 0) {
    return { kind: 'remains', nodes: own.map(({ name }) => name) };
  }
  const [known] = own;
  if (topics.unreadable !== null) throw controlLogUnreadable(cluster, topics.unreadable);
  if (known !== undefined && stream === null) throw topicsGone(cluster, known.name, known.streamId);
  if (state === null || state.stream === null) throw topicsOfNoStream(topic, topics.isEmpty);
  const leader = ownerOf(state)?.node ?? null;
  const isMember = databases.some((one) => judgeBelonging(cluster, one, state).kind === 'member');
  if (isMember) throw clusterExists(cluster, state.stream.streamId, leader);
  const [first] = [...state.starts.values()];
  const served = placeOf(state.starts.get(leader ?? '') ?? first ?? null);
  throw clusterElsewhere(cluster, state.stream.streamId, leader, served);
}
