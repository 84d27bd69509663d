/**
 * From pgoutput messages to changes with positions. Flows in: decoded messages in WAL order; flows
 * out: begin, change, label and commit events, each change with its place in the log. A value that
 * Postgres left out because it is large and did not change is taken from the old row where that was
 * sent (REPLICA IDENTITY FULL); otherwise the row is partial and names the column.
 */
import type {
  Change,
  ColumnId,
  ColumnShape,
  PgText,
  RelationShape,
  RowChange,
} from '../../change/change.ts';
import type { Lsn } from '../../change/lsn.ts';
import { formatPosition, type Position } from '../../change/position.ts';
import { unreachable } from '../../errors/bug.ts';
import { UnderstudyError } from '../../errors/understudy-error.ts';
import { watermarkPrefix } from '../backfill/row-reader.ts';
import type { OldTuple, PgoutputMessage, RelationMessage, Tuple } from './pgoutput-decoder.ts';

export type BuiltEvent =
  | {
      readonly kind: 'begin';
      readonly commitLsn: Lsn;
      readonly commitTimeMicros: bigint;
      readonly xid: number;
    }
  | { readonly kind: 'change'; readonly change: Change; readonly position: Position }
  | { readonly kind: 'label'; readonly label: string }
  /** A read of this id stands here in the WAL. */
  | { readonly kind: 'watermark'; readonly id: string }
  /** Somebody asked here to have all rows of the table read anew. */
  | { readonly kind: 'reread'; readonly relationId: string }
  | { readonly kind: 'commit'; readonly endLsn: Lsn };

/**
 * The relation a message speaks of; throws when it is not what the stream knows of the table. Null
 * for one that is not in the stream: its changes are none of it.
 */
type RelationLookup = (message: RelationMessage) => RelationShape | null;

/** The prefix of the logical message that understudy.point(label) leaves in the WAL. */
const pointPrefix = 'understudy.point';
/** The prefix of the one that has a table read anew; it holds the stream and a relation id. */
const rereadPrefix = 'understudy.reread';
const labelPattern = /^[a-z][a-z0-9_.-]{0,62}$/;

type LogicalMessage = Extract<PgoutputMessage, { readonly kind: 'message' }>;

interface KnownRelation {
  readonly shape: RelationShape;
  readonly name: string;
  /** Where in `shape.columns` each identity column stands, in identity order. */
  readonly identityIndexes: readonly number[];
}

export class TransactionBuilder {
  readonly #streamId: string;
  readonly #epoch: number;
  readonly #lookup: RelationLookup;
  readonly #relations = new Map<number, KnownRelation | null>();
  /** Relations whose record this leader has put into the stream. */
  readonly #announced = new Set<RelationShape>();
  #commitLsn: Lsn | null = null;
  #ordinal = 0;

  constructor(streamId: string, epoch: number, lookup: RelationLookup) {
    this.#streamId = streamId;
    this.#epoch = epoch;
    this.#lookup = lookup;
  }

  build(message: PgoutputMessage): BuiltEvent[] {
    switch (message.kind) {
      case 'begin': {
        this.#commitLsn = message.commitLsn;
        this.#ordinal = 0;
        const { commitLsn, commitTimeMicros, xid } = message;
        return [{ kind: 'begin', commitLsn, commitTimeMicros, xid }];
      }
      case 'commit':
        this.#commitLsn = null;
        return [{ kind: 'commit', endLsn: message.endLsn }];
      case 'relation':
        this.#learn(message);
        return [];
      case 'insert':
        return this.#insert(message.oid, message.values);
      case 'update':
        return this.#update(message.oid, message.old, message.values);
      case 'delete':
        return this.#delete(message.oid, message.old);
      case 'truncate':
        return this.#truncate(message.oids);
      case 'message':
        return this.#message(message);
      case 'ignored':
        return [];
      default:
        return unreachable(message);
    }
  }

  /** Rows that were read, at the place of their watermark. */
  reads(changes: readonly RowChange[]): BuiltEvent[] {
    return changes.flatMap((change) => this.#changes(change.relation, change));
  }

  /** The table's own record, unless this leader has put it into the stream. */
  announce(relation: RelationShape): BuiltEvent[] {
    return this.#changes(relation);
  }

  /** The table's rows come again after this place. */
  reread(relation: RelationShape): BuiltEvent[] {
    return this.#changes(relation, { kind: 'reread', relation });
  }

  /** Anybody may write such a message; only what point() lets through can be a label. */
  #message({ prefix, transactional, content }: LogicalMessage): BuiltEvent[] {
    if (!transactional) return [];
    if (prefix === watermarkPrefix) return [{ kind: 'watermark', id: content }];
    if (prefix === rereadPrefix) return this.#rereads(content);
    const isLabel = prefix === pointPrefix && labelPattern.test(content);
    return isLabel ? [{ kind: 'label', label: content }] : [];
  }

  /** Only who may read our tables knows the stream. */
  #rereads(content: string): BuiltEvent[] {
    const own = `${this.#streamId} `;
    if (!content.startsWith(own)) return [];
    return [{ kind: 'reread', relationId: content.slice(own.length) }];
  }

  #learn(message: RelationMessage): void {
    const shape = this.#lookup(message);
    if (shape === null) {
      this.#relations.set(message.oid, null);
      return;
    }
    const identityIndexes = shape.identity.map((id) =>
      shape.columns.findIndex((column) => column.id === id),
    );
    const name = `${message.schema}.${message.name}`;
    this.#relations.set(message.oid, { shape, name, identityIndexes });
  }

  #insert(oid: number, tuple: Tuple): BuiltEvent[] {
    const known = this.#relation(oid);
    if (known === null) return [];
    const row = rowOf(known, tuple, null);
    const identity = identityOf(known, row.values);
    const { shape: relation } = known;
    return this.#changes(relation, { kind: 'row', op: 'c', relation, identity, ...row, was: null });
  }

  /** A key change is a tombstone of the old key and the row under the new one. */
  #update(oid: number, old: OldTuple | null, tuple: Tuple): BuiltEvent[] {
    const known = this.#keyed(oid, 'updated');
    if (known === null) return [];
    const { shape: relation } = known;
    const row = rowOf(known, tuple, old);
    const identity = identityOf(known, row.values);
    const before = old === null ? identity : identityOf(known, old.values);
    if (sameTexts(before, identity)) {
      const change: Change = { kind: 'row', op: 'u', relation, identity, ...row, was: null };
      return this.#changes(relation, change);
    }
    return this.#changes(
      relation,
      { kind: 'row', op: 'd', relation, identity: before, ...noRow, was: null },
      { kind: 'row', op: 'u', relation, identity, ...row, was: before },
    );
  }

  #delete(oid: number, old: OldTuple): BuiltEvent[] {
    const known = this.#keyed(oid, 'deleted');
    if (known === null) return [];
    const { shape: relation } = known;
    const identity = identityOf(known, old.values);
    return this.#changes(relation, {
      kind: 'row',
      op: 'd',
      relation,
      identity,
      ...noRow,
      was: null,
    });
  }

  /** TRUNCATE a, b stays together: no relation record stands between its parts. */
  #truncate(oids: readonly number[]): BuiltEvent[] {
    const shapes = oids.flatMap((oid) => this.#relation(oid)?.shape ?? []);
    const announced = shapes.flatMap((shape) => this.#changes(shape));
    const truncated = shapes.flatMap((shape) =>
      this.#changes(shape, { kind: 'truncate', relation: shape }),
    );
    return [...announced, ...truncated];
  }

  /** Places changes in the transaction; the relation's own record goes before its first row. */
  #changes(relation: RelationShape, ...changes: Change[]): BuiltEvent[] {
    const commitLsn = this.#commitLsn;
    if (commitLsn === null) {
      throw new UnderstudyError(
        'MESSAGE_UNKNOWN',
        'Postgres sent a row outside of a transaction',
        'Check that the server is a released PostgreSQL 15 or later; if it is, please report this.',
      );
    }
    const announce: Change[] = this.#announced.has(relation)
      ? []
      : [{ kind: 'relation', relation }];
    this.#announced.add(relation);
    return [...announce, ...changes].map((change) => {
      const position = { epoch: this.#epoch, commitLsn, ordinal: this.#ordinal };
      this.#ordinal += 1;
      return { kind: 'change', change: placed(change, position), position };
    });
  }

  /** Postgres itself refuses to change such a row, unless REPLICA IDENTITY FULL tells of it. */
  #keyed(oid: number, what: string): KnownRelation | null {
    const known = this.#relation(oid);
    if (known === null || known.identityIndexes.length > 0) return known;
    throw new UnderstudyError(
      'TABLE_UNSUPPORTED',
      `a row of ${known.name} was ${what}: it has no identity, so rows can only be added to it`,
      'Give the table a primary key, then destroy the cluster and init it again.',
    );
  }

  #relation(oid: number): KnownRelation | null {
    const known = this.#relations.get(oid);
    if (known !== undefined) return known;
    throw new UnderstudyError(
      'MESSAGE_UNKNOWN',
      `Postgres sent a row of the relation ${oid} without describing it first`,
      'Check that the server is a released PostgreSQL 15 or later; if it is, please report this.',
    );
  }
}

interface BuiltRow {
  readonly values: PgText[];
  readonly unchanged: readonly ColumnId[];
}

const nothing: readonly ColumnId[] = [];
const noRow = { values: null, unchanged: nothing } as const;

function rowOf(known: KnownRelation, tuple: Tuple, old: OldTuple | null): BuiltRow {
  const { columns } = known.shape;
  if (tuple.length !== columns.length) {
    throw new UnderstudyError(
      'MESSAGE_UNKNOWN',
      `Postgres sent ${tuple.length} values for the ${columns.length} columns of ${known.name}`,
      'Check that the server is a released PostgreSQL 15 or later; if it is, please report this.',
    );
  }
  let unchanged: ColumnId[] | null = null;
  const values = tuple.map((value, index) => {
    if (value !== undefined) return value;
    const kept = keptValue(known, index, old);
    if (kept !== undefined) return kept;
    unchanged ??= [];
    unchanged.push((columns[index] as ColumnShape).id);
    return null;
  });
  return { values, unchanged: unchanged ?? nothing };
}

/** What an old row says of a column; an old key says nothing but the key. */
function keptValue(known: KnownRelation, index: number, old: OldTuple | null) {
  if (old === null) return undefined;
  const isSent = old.kind === 'O' || known.identityIndexes.includes(index);
  return isSent ? old.values[index] : undefined;
}

/** A row without an identity is known by its position: no two are alike, and none is ever meant. */
function placed(change: Change, position: Position): Change {
  if (change.kind !== 'row' || change.relation.identity.length > 0) return change;
  return { ...change, identity: [formatPosition(position)] };
}

function identityOf(known: KnownRelation, values: Tuple): string[] {
  return known.identityIndexes.map((index) => {
    const value = values[index];
    if (typeof value === 'string') return value;
    throw new UnderstudyError(
      'MESSAGE_UNKNOWN',
      `Postgres sent a row of ${known.name} without its identity column`,
      'Check that the replica identity of the table is its primary key or a NOT NULL unique index.',
    );
  });
}

function sameTexts(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((text, index) => text === b[index]);
}
