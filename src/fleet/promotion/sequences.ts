/**
 * Sets the sequences of a node that is promoted or detached. Flows in: the sequences of the
 * database, the positions of the leader's that the node read in the topic, and the values in their
 * columns; flows out: what was set, and what could not be done, in words. No table, type, privilege
 * or lock makes it fail: it is done before the claim, and once more, in less time, for what was
 * applied since. Only a lost connection is an error.
 */
import { type Client, DatabaseError } from 'pg';
import { inTransaction, qualifiedName, quoteIdentifier } from '../../catalog/postgres-session.ts';
import {
  readSequences,
  readSequenceValues,
  type SequenceColumn,
  type SequenceFacts,
} from '../../catalog/sequences.ts';
import { readSavedSequences, type SavedSequence } from '../../follower/state/sequence-positions.ts';
import {
  type GapSearch,
  judgeSequence,
  type SequenceDecision,
  type SequenceKnown,
} from './sequence-value.ts';

export interface SequenceChange {
  /** schema.name */
  readonly sequence: string;
  /** Null where it had given no value. */
  readonly from: string | null;
  readonly to: string;
}

/** While another node may still lead. */
export const beforeClaimMs = 15_000;
/** While no node leads. */
export const afterClaimMs = 5_000;

const partStatementMs = 5_000;
const singleStatementMs = 2_000;
/** Clients only read on a follower: a lock that lasts longer does not end soon. */
const lockWaitMs = 1_000;
/** Far below the planner's limits. */
const columnsPerStatement = 200;
const sequencesPerStatement = 500;
/** Read from the outermost value down, where the leader's position is not known. */
const rowsBehindGapMax = 1_000;

type Attempt<Value> =
  | { readonly kind: 'done'; readonly value: Value }
  | { readonly kind: 'failed'; readonly code: string; readonly reason: string };

/** One reading of a column; null is a column without a value. */
type ColumnRead = Attempt<bigint | null>;

interface Candidate {
  readonly sequence: SequenceFacts;
  /** Null where it has given no value; undefined where that is not known. */
  readonly lastValue: bigint | null | undefined;
  readonly published: SavedSequence | null;
}

export class SequenceSetter {
  readonly #client: Client;
  readonly #nowMs: () => number;
  /** By OID, as they were before this object set any: a margin is added to these once. */
  readonly #before = new Map<number, bigint | null>();
  readonly #set = new Map<number, { readonly sequence: SequenceFacts; readonly to: bigint }>();
  /** By the column's name: what an earlier reading found. */
  readonly #used = new Map<string, bigint>();
  #lacks: readonly string[] = [];
  #deadlineMs = 0;

  constructor(client: Client, nowMs: () => number) {
    this.#client = client;
    this.#nowMs = nowMs;
  }

  get changes(): readonly SequenceChange[] {
    return [...this.#set].map(([oid, { sequence, to }]) => {
      const from = this.#before.get(oid) ?? null;
      return {
        sequence: `${sequence.schema}.${sequence.name}`,
        from: from === null ? null : String(from),
        to: String(to),
      };
    });
  }

  /** Of the last call. */
  get lacks(): readonly string[] {
    return this.#lacks;
  }

  /** `dry` judges and sets nothing. */
  async advance(maxMs: number, dry = false): Promise<void> {
    this.#deadlineMs = this.#nowMs() + maxMs;
    const found = await this.#attempt(partStatementMs, null, () => this.#candidates());
    if (found.kind === 'failed') {
      this.#lacks = [`the positions of its sequences: ${found.reason}`];
      return;
    }
    const lacks = new Map<SequenceFacts, string>();
    const decided = await this.#decide(found.value, lacks);
    if (!dry) await this.#setAll(decided, lacks);
    this.#lacks = [...lacks].map(([{ schema, name }, reason]) => {
      return `the position of the sequence ${schema}.${name}: ${reason}`;
    });
  }

  async #candidates(): Promise<readonly Candidate[]> {
    const saved = await readSavedSequences(this.#client);
    const published = new Map(saved.map((one) => [nameOf(one), one]));
    const values = new Map(
      (await readSequenceValues(this.#client)).map(({ oid, lastValue }) => [oid, lastValue]),
    );
    return (await readSequences(this.#client)).map((sequence) => {
      const { oid } = sequence;
      const now = values.get(oid);
      if (now !== undefined && !this.#before.has(oid)) this.#before.set(oid, now);
      return {
        sequence,
        lastValue: this.#before.get(oid),
        published: published.get(nameOf(sequence)) ?? null,
      };
    });
  }

  async #decide(
    candidates: readonly Candidate[],
    lacks: Map<SequenceFacts, string>,
  ): Promise<Map<SequenceFacts, bigint>> {
    const reads = await this.#readColumns(candidates);
    const decided = new Map<SequenceFacts, bigint>();
    for (const { sequence, lastValue, published } of candidates) {
      if (lastValue === undefined) {
        lacks.set(sequence, notRead);
        continue;
      }
      const columns = integerColumns(sequence).map((column) => reads.get(column));
      const failed = columns.find((read) => read?.kind === 'failed');
      const used = columns.flatMap((read) => {
        return read?.kind === 'done' && read.value !== null ? [read.value] : [];
      });
      const outermost = used.length === 0 ? null : used.reduce(outerOf(sequence));
      const known = { sequence, lastValue, published, used: outermost };
      const decision = await this.#judge(known);
      if (decision.value !== null) decided.set(sequence, decision.value);
      const reason = failed?.kind === 'failed' ? failed.reason : decision.lack;
      if (reason !== null) lacks.set(sequence, reason);
    }
    return decided;
  }

  async #judge(known: SequenceKnown & Pick<Candidate, 'sequence'>): Promise<SequenceDecision> {
    const first = judgeSequence(known);
    if (first.kind === 'set') return first;
    const { sequence } = known;
    const search = await this.#attempt(singleStatementMs, lockWaitMs, async () => {
      const { rows } = await this.#client.query<[string | null]>({
        text: searchSql(sequence, first),
        rowMode: 'array',
      });
      return rows[0]?.[0] ?? null;
    });
    const found = search.kind === 'done' && search.value !== null ? BigInt(search.value) : null;
    const second = judgeSequence({ ...known, behindGap: found });
    if (second.kind === 'search') return { kind: 'set', value: null, lack: null };
    const lack = search.kind === 'failed' ? search.reason : second.lack;
    return { ...second, lack };
  }

  async #readColumns(
    candidates: readonly Candidate[],
  ): Promise<ReadonlyMap<SequenceColumn, ColumnRead>> {
    const all = candidates.flatMap(({ sequence }) => {
      return integerColumns(sequence).map((column) => ({ sequence, column }));
    });
    const reads = new Map<SequenceColumn, ColumnRead>();
    for (let first = 0; first < all.length; first += columnsPerStatement) {
      const part = all.slice(first, first + columnsPerStatement);
      const values = await this.#readPart(part, partStatementMs);
      for (const [i, one] of part.entries()) {
        const read =
          values.kind === 'done'
            ? { kind: 'done' as const, value: values.value[i] ?? null }
            : await this.#readColumn(one);
        reads.set(one.column, this.#orEarlier(one.column, read));
      }
    }
    return reads;
  }

  async #readColumn(one: UsedColumn): Promise<ColumnRead> {
    const read = await this.#readPart([one], singleStatementMs);
    if (read.kind === 'done') return { kind: 'done', value: read.value[0] ?? null };
    // The table or the column was dropped meanwhile.
    if (undefinedCodes.includes(read.code)) return { kind: 'done', value: null };
    const { schema, table, column } = one.column;
    return { ...read, reason: `${schema}.${table}.${column} was not read: ${read.reason}` };
  }

  #readPart(
    part: readonly UsedColumn[],
    statementMs: number,
  ): Promise<Attempt<readonly (bigint | null)[]>> {
    return this.#attempt(statementMs, lockWaitMs, async () => {
      const { rows } = await this.#client.query<[string, string | null]>({
        text: part.map(outermostSql).join(' UNION ALL '),
        rowMode: 'array',
      });
      const values = new Map(rows.map(([place, value]) => [Number(place), value]));
      return part.map((_, place) => {
        const value = values.get(place) ?? null;
        return value === null ? null : BigInt(value);
      });
    });
  }

  /** After the claim there is less time: what was read before it is nearly as good. */
  #orEarlier(column: SequenceColumn, read: ColumnRead): ColumnRead {
    const name = JSON.stringify([column.schema, column.table, column.column]);
    if (read.kind === 'done') {
      if (read.value !== null) this.#used.set(name, read.value);
      return read;
    }
    const earlier = this.#used.get(name);
    return earlier === undefined ? read : { kind: 'done', value: earlier };
  }

  async #setAll(
    decided: ReadonlyMap<SequenceFacts, bigint>,
    lacks: Map<SequenceFacts, string>,
  ): Promise<void> {
    const all = [...decided].filter(([sequence, to]) => {
      if (!sequence.maySet) lacks.set(sequence, `its owner is ${sequence.owner}: ${notAllowed}`);
      return sequence.maySet && this.#isNew(sequence, to);
    });
    for (let first = 0; first < all.length; first += sequencesPerStatement) {
      const part = all.slice(first, first + sequencesPerStatement);
      const isSet = await this.#setPart(part, partStatementMs);
      for (const one of part) {
        const single =
          isSet.kind === 'done' ? isSet : await this.#setPart([one], singleStatementMs);
        const [sequence, to] = one;
        if (single.kind === 'done') this.#set.set(sequence.oid, { sequence, to });
        else if (await this.#exists(sequence)) lacks.set(sequence, single.reason);
        else lacks.delete(sequence);
      }
    }
  }

  /** Of an earlier call: it is not set backwards. */
  #isNew({ oid, increment, cycles }: SequenceFacts, to: bigint): boolean {
    const earlier = this.#set.get(oid)?.to;
    if (earlier === undefined || cycles) return earlier !== to;
    return increment > 0n ? to > earlier : to < earlier;
  }

  #setPart(
    part: readonly (readonly [SequenceFacts, bigint])[],
    statementMs: number,
  ): Promise<Attempt<void>> {
    return this.#attempt(statementMs, lockWaitMs, async () => {
      await this.#client.query(
        `SELECT pg_catalog.setval(s.oid::regclass, s.value, true)
         FROM unnest($1::oid[], $2::bigint[]) AS s (oid, value)`,
        [part.map(([{ oid }]) => oid), part.map(([, to]) => String(to))],
      );
    });
  }

  async #exists({ oid }: SequenceFacts): Promise<boolean> {
    const { rowCount } = await this.#client.query('SELECT FROM pg_class WHERE oid = $1', [oid]);
    return rowCount === 1;
  }

  /** In a transaction of its own, so that a refusal undoes nothing else. */
  async #attempt<Value>(
    statementMs: number,
    lockMs: number | null,
    work: () => Promise<Value>,
  ): Promise<Attempt<Value>> {
    const leftMs = Math.min(statementMs, this.#deadlineMs - this.#nowMs());
    if (leftMs <= 0) return { kind: 'failed', code: '', reason: 'there was no time left for it' };
    try {
      const value =
        lockMs === null
          ? await work()
          : await inTransaction(this.#client, async () => {
              await this.#client.query(`SET LOCAL statement_timeout = ${Math.ceil(leftMs)}`);
              await this.#client.query(`SET LOCAL lock_timeout = ${lockMs}`);
              return work();
            });
      return { kind: 'done', value };
    } catch (error) {
      if (!(error instanceof DatabaseError)) throw error;
      const [reason = ''] = error.message.split('\n', 1);
      return { kind: 'failed', code: error.code ?? '', reason };
    }
  }
}

interface UsedColumn {
  readonly sequence: SequenceFacts;
  readonly column: SequenceColumn;
}

const notRead = 'it was not read: another session has locked it, or this role may not SELECT it';
const notAllowed = 'this role may not set it; GRANT UPDATE on it';
const undefinedCodes: readonly string[] = ['42P01', '42703', '3F000'];

/** A sequence that cycles goes by its own position alone. */
function integerColumns({ columns, cycles }: SequenceFacts): readonly SequenceColumn[] {
  return cycles ? [] : columns.filter(({ max }) => max !== null);
}

function nameOf({ schema, name }: { readonly schema: string; readonly name: string }): string {
  return JSON.stringify([schema, name]);
}

function outerOf({ increment }: SequenceFacts): (a: bigint, b: bigint) => bigint {
  return (a, b) => (increment > 0n === a > b ? a : b);
}

/** Rows of a partitioned table are in its partitions; every other table counts alone. */
function fromSql({ schema, table, isPartitioned }: SequenceColumn): string {
  return `${isPartitioned ? '' : 'ONLY '}${qualifiedName(schema, table)}`;
}

/** Found by an index on the column where there is one. */
function outermostSql({ sequence, column }: UsedColumn, place: number): string {
  const name = quoteIdentifier(column.column);
  const outermost = sequence.increment > 0n ? 'max' : 'min';
  return `SELECT ${place}, (
    SELECT pg_catalog.${outermost}(${name})::bigint FROM ${fromSql(column)}
    WHERE ${withinSql(name, sequence)})`;
}

/** What a sequence cannot give cannot be given twice. */
function withinSql(name: string, { min, max }: SequenceFacts): string {
  return `${name} BETWEEN ${bigintSql(min)} AND ${bigintSql(max)}`;
}

/** As a plain number the smallest one would be a numeric, for which no index is used. */
function bigintSql(value: bigint): string {
  return `'${value}'::bigint`;
}

/** The last value before the first gap behind `from`, or before the last gap of all. */
function searchSql(sequence: SequenceFacts, { from, gap, to }: GapSearch): string {
  const ascending = sequence.increment > 0n;
  const columns = integerColumns(sequence);
  const order = ascending ? 'ASC' : 'DESC';
  const back = ascending ? 'DESC' : 'ASC';
  const past = ascending ? '>' : '<';
  const outer = ascending ? 'max' : 'min';
  const inner = ascending ? 'min' : 'max';
  if (from !== null) {
    const values = columns.map((column) => {
      const name = quoteIdentifier(column.column);
      return `SELECT ${name}::numeric AS v FROM ${fromSql(column)}
        WHERE ${name} ${past} ${bigintSql(from)} AND ${withinSql(name, sequence)}`;
    });
    return `
      SELECT coalesce(${inner}(before) FILTER (WHERE abs(v - before) > ${gap}), ${outer}(v))::bigint
      FROM (
        SELECT v, lag(v, 1, ${from}::numeric) OVER (ORDER BY v ${order}) AS before
        FROM (${values.join(' UNION ALL ')}) AS u) AS w`;
  }
  // Of several columns all values count: each may fill the gap of another.
  const values = columns.map((column) => {
    const name = quoteIdentifier(column.column);
    const first = columns.length > 1 ? '' : `ORDER BY ${name} ${back} LIMIT ${rowsBehindGapMax}`;
    return `(
      SELECT ${name}::numeric AS v FROM ${fromSql(column)}
      WHERE ${withinSql(name, sequence)} ${first})`;
  });
  return `
    SELECT ${outer}(v) FILTER (WHERE abs(after - v) >= ${gap})::bigint
    FROM (
      SELECT v, lag(v, 1, ${to}::numeric) OVER (ORDER BY v ${back}) AS after
      FROM (${values.join(' UNION ALL ')}) AS u) AS w`;
}
