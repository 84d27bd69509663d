/**
 * Whether a database is the one from which a node is served. It takes what the database says of
 * itself and the last start of the node in the control log; it gives a verdict. A copy of the
 * configuration that leads elsewhere, a restored or a moved database, and a name that is used twice
 * are `other`: serving them would take the node away from its database. Pure.
 */
import type { NodeIdentity } from '../../catalog/understudy-schema.ts';
import type { RecordOf, ServedDatabase } from '../../control/control-records.ts';
import type { ControlState } from '../../control/control-state.ts';
import type { DatabasePlace } from '../../errors/belonging.ts';

export interface ReachedDatabase extends ServedDatabase {
  /** OIDs of all databases of its server. */
  readonly present: ReadonlySet<string>;
  /** The OID of the database that this one has replaced in a rebuild. */
  readonly replaces: string | null;
}

type DatabaseVerdict =
  /** It is the node's. */
  | { readonly kind: 'own' }
  /** It never was a node, and no other database has this node's name. */
  | { readonly kind: 'free' }
  /** The node has another database; null where its last start is not recorded. */
  | { readonly kind: 'other'; readonly served: RecordOf<'start'> | null };

/** `identity` is null where the database is no node; else it is this one, of the present stream. */
export function judgeDatabase(
  node: string,
  identity: Pick<NodeIdentity, 'role'> | null,
  reached: ReachedDatabase,
  state: Pick<ControlState, 'starts' | 'claims'>,
): DatabaseVerdict {
  const served = state.starts.get(node) ?? null;
  const isKnown = served !== null || state.claims.some((claim) => claim.node === node);
  const former = served?.database ?? null;
  if (identity === null) {
    const isFree = former !== null && (isSame(former, reached) || isGone(former, reached));
    return isFree || !isKnown ? { kind: 'free' } : { kind: 'other', served };
  }
  // The start number distinguishes physical copies of a leader, which is raised every minute.
  const isLeaders = identity.role === 'leader' && isSameDatabase(former, reached);
  const isOwn =
    former === null ||
    isLeaders ||
    isSame(former, reached) ||
    isGone(former, reached) ||
    (isOnServer(former, reached) && former.oid === reached.replaces);
  // rule: other-database-is-refused
  return isOwn ? { kind: 'own' } : { kind: 'other', served };
}

/**
 * A physical copy of a server has its system identifier. It was started at another time, and is
 * reached by another address; a server that was restarted, or has another name now, keeps one.
 */
function isOnServer(former: ServedDatabase, reached: ServedDatabase): boolean {
  if (former.systemId !== reached.systemId) return false;
  return former.startedAt === reached.startedAt || former.address === reached.address;
}

function isSameDatabase(former: ServedDatabase | null, reached: ServedDatabase): boolean {
  return former?.systemId === reached.systemId && former.oid === reached.oid;
}

function isSame(former: ServedDatabase, reached: ServedDatabase): boolean {
  return isOnServer(former, reached) && former.oid === reached.oid;
}

/** It was dropped on this server: nothing can be taken from it any more. */
function isGone(former: ServedDatabase, reached: ReachedDatabase): boolean {
  return isOnServer(former, reached) && !reached.present.has(former.oid);
}

/** What the control log keeps of it. */
export function servedDatabase(database: ServedDatabase): ServedDatabase {
  const { systemId, oid, name, address, startedAt } = database;
  return { systemId, oid, name, address, startedAt };
}

/** Its place as messages name it. */
export function placeOf(served: RecordOf<'start'> | null): DatabasePlace | null {
  if (served === null) return null;
  const { database, time } = served;
  return database === undefined ? null : { ...database, since: time };
}
