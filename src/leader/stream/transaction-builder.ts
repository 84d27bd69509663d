/**
 * From pgoutput messages to changes with positions. Flows in: decoded messages in WAL order; flows
 * out: begin, change, label and commit events, each change with its position. A value that Postgres
 * left out because it is large and did not change is taken from the old row where that was sent
 * (REPLICA IDENTITY FULL); otherwise the row is partial and names the column.
 */
import type { Change, ColumnId, ColumnShape, PgText, RelationShape } from '../../change/change.ts';
import type { Lsn } from '../../change/lsn.ts';
import { formatPosition, type Position } from '../../change/position.ts';
import { unreachable } from '../../errors/bug.ts';
import { changedWithoutIdentity } from '../../errors/table.ts';
import { rowWithoutIdentity, unexpectedPgoutput } from '../../errors/topic.ts';
import type { OldTuple, PgoutputMessage, RelationMessage, Tuple } from './pgoutput-decoder.ts';
import type { BuiltEvent, ChangeBuilder, ObservedRead, StreamTables } from './stages.ts';

/** The prefix of the message of understudy.point(label); it holds the stream and the label. */
const pointPrefix = 'understudy.point';
/** The prefix of the one that requests a resnapshot; it holds the stream and a relation id. */
const resnapshotPrefix = 'understudy.reread';
/** The prefix of the one that gives a read its position in the WAL. */
export const watermarkPrefix = 'understudy.watermark';
const labelPattern = /^[a-z][a-z0-9_.-]{0,62}$/;

type LogicalMessage = Extract<PgoutputMessage, { readonly kind: 'message' }>;

interface KnownRelation {
  readonly shape: RelationShape;
  readonly name: string;
  /** The index in `shape.columns` of each identity column, in identity order. */
  readonly identityIndexes: readonly number[];
}

export class TransactionBuilder implements ChangeBuilder {
  readonly #streamId: string;
  readonly #epoch: number;
  readonly #tables: Pick<StreamTables, 'shapeOf'>;
  readonly #relations = new Map<number, KnownRelation | null>();
  /** Relations whose record was published in this run. */
  readonly #announced = new Set<RelationShape>();
  #commitLsn: Lsn | null = null;
  #ordinal = 0;

  constructor(streamId: string, epoch: number, tables: Pick<StreamTables, 'shapeOf'>) {
    this.#streamId = streamId;
    this.#epoch = epoch;
    this.#tables = tables;
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
        return [{ kind: 'commit', commitEndLsn: message.commitEndLsn }];
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

  read({ relation, rows }: ObservedRead): BuiltEvent[] {
    const announced = relation === null ? [] : this.#changes(relation);
    return [...announced, ...rows.flatMap((change) => this.#changes(change.relation, change))];
  }

  resnapshot(relation: RelationShape): BuiltEvent[] {
    // rule: ended-relation-is-published
    if (relation.dropped) return this.#changes(relation);
    return this.#changes(relation, { kind: 'reread', relation });
  }

  /** Any user may write such a message, but only `understudy` knows the stream id in it. */
  #message({ prefix, transactional, content }: LogicalMessage): BuiltEvent[] {
    if (!transactional) return [];
    if (prefix === watermarkPrefix) return [{ kind: 'watermark', id: content }];
    const own = `${this.#streamId} `;
    if (!content.startsWith(own)) return [];
    const said = content.slice(own.length);
    if (prefix === resnapshotPrefix) return [{ kind: 'resnapshot', relationId: said }];
    const isLabel = prefix === pointPrefix && labelPattern.test(said);
    return isLabel ? [{ kind: 'label', label: said }] : [];
  }

  #learn(message: RelationMessage): void {
    const shape = this.#tables.shapeOf(message);
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

  /** TRUNCATE a, b stays together: no relation record comes between its parts. */
  #truncate(oids: readonly number[]): BuiltEvent[] {
    const shapes = oids.flatMap((oid) => this.#relation(oid)?.shape ?? []);
    const announced = shapes.flatMap((shape) => this.#changes(shape));
    const truncated = shapes.flatMap((shape) =>
      this.#changes(shape, { kind: 'truncate', relation: shape }),
    );
    return [...announced, ...truncated];
  }

  /** Gives changes their positions; the relation's own record precedes its first change. */
  #changes(relation: RelationShape, ...changes: Change[]): BuiltEvent[] {
    const commitLsn = this.#commitLsn;
    if (commitLsn === null) {
      throw unexpectedPgoutput('a row outside of a transaction');
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

  /** Postgres itself refuses to change such a row, except under REPLICA IDENTITY FULL. */
  #keyed(oid: number, what: 'updated' | 'deleted'): KnownRelation | null {
    const known = this.#relation(oid);
    if (known === null || known.identityIndexes.length > 0) return known;
    throw changedWithoutIdentity(known.name, what);
  }

  #relation(oid: number): KnownRelation | null {
    const known = this.#relations.get(oid);
    if (known !== undefined) return known;
    throw unexpectedPgoutput(`a row of the relation ${oid} without describing it first`);
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
    const counts = `${tuple.length} values for the ${columns.length} columns of ${known.name}`;
    throw unexpectedPgoutput(counts);
  }
  let unchanged: ColumnId[] | null = null;
  const values = tuple.map((value, index) => {
    if (value !== undefined) return value;
    const kept = keptValue(known, index, old);
    // rule: unsent-value-is-not-null
    if (kept !== undefined) return kept;
    unchanged ??= [];
    unchanged.push((columns[index] as ColumnShape).id);
    return null;
  });
  return { values, unchanged: unchanged ?? nothing };
}

/** The value of a column in the old row; an old key holds nothing but the key. */
function keptValue(known: KnownRelation, index: number, old: OldTuple | null) {
  if (old === null) return undefined;
  const isSent = old.kind === 'O' || known.identityIndexes.includes(index);
  return isSent ? old.values[index] : undefined;
}

/**
 * A row without an identity is known by its position: no two are alike, and none is ever changed.
 */
function placed(change: Change, position: Position): Change {
  if (change.kind !== 'row' || change.relation.identity.length > 0) return change;
  return { ...change, identity: [formatPosition(position)] };
}

function identityOf(known: KnownRelation, values: Tuple): string[] {
  return known.identityIndexes.map((index) => {
    const value = values[index];
    if (typeof value === 'string') return value;
    throw rowWithoutIdentity(known.name);
  });
}

function sameTexts(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((text, index) => text === b[index]);
}
