/**
 * Whether the databases that understudy.yaml leads to belong to the stream whose topics it leads
 * to. It takes what each database and the control log say, and gives a verdict for each node; a
 * foreign one carries the error that says where the node or the database really belongs. Pure.
 */
import type { NodeIdentity } from '../../catalog/understudy-schema.ts';
import type { ControlState } from '../../control/control-state.ts';
import { otherDatabase } from '../../errors/belonging.ts';
import { otherMember } from '../../errors/node-state.ts';
import { nodeOfOtherStream } from '../../errors/topic.ts';
import type { UnderstudyError } from '../../errors/understudy-error.ts';
import { judgeDatabase, placeOf, type ReachedDatabase } from './judge-database.ts';

export interface FoundDatabase {
  readonly name: string;
  /** null where it is no node. */
  readonly identity: NodeIdentity | null;
  readonly reached: ReachedDatabase;
  /** Whether an agent holds the lock of this database. */
  readonly isServed: boolean;
}

type Belonging =
  | { readonly kind: 'member'; readonly streamId: string }
  /** No node, under a name that no other database has. */
  | { readonly kind: 'free' }
  | { readonly kind: 'foreign'; readonly error: UnderstudyError };

/** `state` is null where there is no control log, or none that can be read. */
export function judgeBelonging(
  cluster: string,
  { name, identity, reached }: Omit<FoundDatabase, 'isServed'>,
  state: ControlState | null,
): Belonging {
  const stream = state?.stream ?? null;
  // It has left the stream, and may be a node of another one by now.
  const hasLeft = state?.detached.has(name) === true && identity?.streamId !== stream?.streamId;
  if (hasLeft) return { kind: 'free' };
  if (identity !== null) {
    if (identity.cluster !== cluster || identity.name !== name) {
      return { kind: 'foreign', error: otherMember(name, identity) };
    }
    if (stream !== null && identity.streamId !== stream.streamId) {
      const error = nodeOfOtherStream(name, stream.streamId, identity.streamId);
      return { kind: 'foreign', error };
    }
  }
  if (state !== null && stream !== null) {
    const verdict = judgeDatabase(name, identity, reached, state);
    if (verdict.kind === 'other') {
      const error = otherDatabase(name, reached, placeOf(verdict.served));
      return { kind: 'foreign', error };
    }
  }
  return identity === null ? { kind: 'free' } : { kind: 'member', streamId: identity.streamId };
}

/** Nodes of the stream, by the control log; those that were detached have left it. */
export function nodesOfStream({ starts, claims, detached }: ControlState): string[] {
  const names = new Set([...starts.keys(), ...claims.map(({ node }) => node)]);
  return [...names].filter((name) => !detached.has(name)).sort();
}

/** For `status`: where the node is served from, if not from the database that was reached. */
export function servedElsewhere(
  cluster: string,
  name: string,
  { identity, reached }: Pick<FoundDatabase, 'identity'> & { readonly reached?: ReachedDatabase },
  state: ControlState | null,
): string | null {
  if (state === null || state.stream === null || reached === undefined) return null;
  const isMember = identity?.cluster === cluster && identity.name === name;
  const isOfStream = isMember && identity.streamId === state.stream.streamId;
  // What belongs elsewhere by its own account says so itself.
  if (identity !== null && !isOfStream) return null;
  const belonging = judgeBelonging(cluster, { name, identity, reached }, state);
  return belonging.kind === 'foreign'
    ? `${belonging.error.message}: ${belonging.error.hint}`
    : null;
}
