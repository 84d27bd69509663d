/**
 * Writes steps into the follower's tables, together with the position they lead to. Flows in: final
 * rows per table and barriers; flows out: one committed transaction, or none. It runs under
 * session_replication_role = replica, so that ordinary triggers, foreign keys and the write guard
 * do not fire.
 */
import { type Client, DatabaseError } from 'pg';
import { removedRowsSql, rowsByKeySql } from '../../catalog/key-lookup.ts';
import { inTransaction } from '../../catalog/postgres-session.ts';
import { displayName } from '../../catalog/table.ts';
import type { ColumnId, PgText, RelationId } from '../../change/change.ts';
import { rowRefused } from '../../errors/row.ts';
import { batchNotApplied } from '../../errors/unreachable.ts';
import { hit } from '../../failpoints.ts';
import type { RecordDecoder } from '../../topic/records/decoder.ts';
import type { RowRecord } from '../../topic/records/stream-record.ts';
import { endBootstrap } from '../state/bootstrap-state.ts';
import { type FollowerPosition, movePosition, saveLabel } from '../state/follower-state.ts';
import { saveSequences } from '../state/sequence-positions.ts';
import type { ApplyTargets } from './apply-targets.ts';
import { KeptBases } from './kept-bases.ts';
import { type BaseQuery, type BaseRows, type Layer, layerOf } from './partial-rows.ts';
import { finishedAt, rowsSeen } from './resnapshots.ts';
import { rowActions, rowCount, type TableStep } from './row-actions.ts';
import {
  type ApplyTarget,
  deleteAllSql,
  deleteSql,
  RowWriter,
  statementRowsMax,
  truncateSql,
} from './row-writer.ts';
import type {
  ApplyMove,
  ApplyStage,
  ApplyStep,
  ApplySteps,
  MayLackBase,
  TableRows,
  WholeRow,
} from './stages.ts';

/** Unique and exclusion conflicts, and an update of a GENERATED ALWAYS column. */
const conflictCodes: readonly string[] = ['23505', '23P01', '428C9'];
const truncateRefusedCode = '0A000';

export class Applier implements ApplyStage {
  readonly #client: Client;
  readonly #targets: ApplyTargets;
  readonly #decoder: RecordDecoder;
  readonly #kept: KeptBases;
  /** The table of the last rows, for an error that names none. */
  #writing: ApplyTarget | null = null;

  constructor(client: Client, targets: ApplyTargets, decoder: RecordDecoder) {
    this.#client = client;
    this.#targets = targets;
    this.#decoder = decoder;
    this.#kept = new KeptBases(client, targets.functions);
  }

  /**
   * Applies all steps and moves the position, or changes nothing; gives the number of rows. Two
   * rows that swap a unique value conflict when they are upserted one after the other; then the
   * steps are asked for once more, and all rows of each are deleted first and inserted after that.
   * A conflict that is left in a table under resnapshot may be with a row that the leader has
   * deleted: then the rows that the resnapshot has not seen yet are deleted first.
   */
  async apply(steps: ApplySteps, move: ApplyMove): Promise<number> {
    const { from, to, labelled, sequences, mayLackBase, becomesExact = false } = move;
    // rule: position-moves-with-rows
    const save = async (): Promise<void> => {
      await this.#finishResnapshots(to);
      for (const point of labelled) await saveLabel(this.#client, point);
      await saveSequences(this.#client, sequences);
      await movePosition(this.#client, from, to);
      if (becomesExact) await endBootstrap(this.#client);
    };
    return await this.applyAnd(steps, save, mayLackBase);
  }

  /** The same, with what `save` writes instead of the position, in the same transaction. */
  async applyAnd(
    steps: ApplySteps,
    save: () => Promise<void>,
    mayLackBase: MayLackBase,
  ): Promise<number> {
    for (let way: Way = 'upsert'; ; ) {
      const applied = await this.#applyOnce(steps, save, mayLackBase, way);
      if ('rows' in applied) return applied.rows;
      way = applied.next;
    }
  }

  async #applyOnce(
    steps: ApplySteps,
    save: () => Promise<void>,
    mayLackBase: MayLackBase,
    way: Way,
  ): Promise<{ readonly rows: number } | { readonly next: Way }> {
    await hit('apply.before');
    let rows = 0;
    try {
      await inTransaction(this.#client, async () => {
        if (way === 'clear') await this.#removeUnseen();
        for await (const step of steps()) {
          rows += await this.#step(step, way, mayLackBase);
          await hit('apply.after-step');
        }
        await save();
        await hit('apply.before-commit');
      });
    } catch (error) {
      const next = nextWay(way, this.#targets.resnapshots.open.length > 0);
      this.#targets.forgetUncommitted();
      if (next !== null && isConflict(error)) return { next };
      throw refused(error, this.#writing);
    }
    this.#targets.committed();
    await hit('apply.after-commit');
    return { rows };
  }

  async #removeUnseen(): Promise<void> {
    const { resnapshots } = this.#targets;
    for (const id of resnapshots.open) await resnapshots.removeUnseen(this.#targets.get(id));
  }

  async #finishResnapshots(to: FollowerPosition): Promise<void> {
    const { resnapshots } = this.#targets;
    for (const id of finishedAt(to, resnapshots.open)) {
      await resnapshots.finish(this.#targets.get(id));
    }
  }

  /** Gives the number of rows that were written or deleted. */
  async #step(step: ApplyStep, way: Way, mayLackBase: MayLackBase): Promise<number> {
    switch (step.kind) {
      case 'reread': {
        const target = this.#targets.getOfRows(step.relationId);
        await this.#targets.resnapshots.begin(target);
        if (way === 'clear') await this.#targets.resnapshots.removeUnseen(target);
        return 0;
      }
      case 'relation':
        await this.#targets.relation(step.relation);
        return 0;
      case 'truncate':
        await this.#truncate(step.relationIds);
        return 0;
      case 'rows': {
        const tables = step.tables.map((rows) => ({
          rows,
          table: this.#targets.getOfRows(rows.relationId),
          mayLackBase: mayLackBase(rows.relationId),
        }));
        await this.#applyRows(tables, way !== 'upsert');
        return step.tables.reduce((sum, rows) => sum + rowCount(rows), 0);
      }
    }
  }

  async #applyRows(tables: readonly TableStep<ApplyTarget>[], replace: boolean): Promise<void> {
    const actions = rowActions(tables, { replace, layer: this.#layer });
    let answer: BaseRows = [];
    let writer = null as RowWriter | null;
    for (let next = actions.next(answer); next.done !== true; next = actions.next(answer)) {
      const action = next.value;
      switch (action.kind) {
        case 'read':
          answer = await this.#readBases(action);
          break;
        case 'keep':
          await this.#kept.keep(action, columnsOf(action.table, action.keys));
          break;
        case 'kept':
          answer = await this.#kept.read(action);
          break;
        case 'removed':
          answer = await this.#removedBy(action.table, action.keys, action.by);
          break;
        case 'delete':
          this.#writing = action.table;
          await this.#deleteRows(action.table, action.rows);
          break;
        case 'upsert':
          this.#writing = action.table;
          writer = new RowWriter(this.#client, this.#targets.functions, action.table, replace);
          await this.#writeRows(writer, action.table, action.rows);
          break;
        case 'complete':
          if (writer?.add(action.values, allColumns(action.table)) === true) await writer.flush();
          break;
        case 'end':
          await writer?.flush();
          await this.#kept.end(action.table);
          await this.#addSeen(action.table, action.rows);
      }
    }
  }

  async #addSeen(target: ApplyTarget, rows: TableRows): Promise<void> {
    const { resnapshots } = this.#targets;
    if (!resnapshots.has(rows.relationId)) return;
    const all = rowsSeen(rows);
    for (let i = 0; i < all.length; i += statementRowsMax) {
      const part = all.slice(i, i + statementRowsMax);
      await resnapshots.addSeen(target, keysOf(target, part));
    }
  }

  #sql({ owner }: ApplyTarget, text: string, results?: number): Promise<string> {
    return this.#targets.functions.statement(owner, text, results);
  }

  async #truncate(relationIds: readonly RelationId[]): Promise<void> {
    const targets = relationIds.map((id) => this.#targets.get(id));
    await this.#client.query('SAVEPOINT understudy_truncate');
    try {
      await this.#client.query(truncateSql(targets));
    } catch (error) {
      // A table that others refer to cannot be truncated alone, not even without foreign keys being
      // checked; an unconditional delete has the same outcome.
      if (!(error instanceof DatabaseError) || error.code !== truncateRefusedCode) throw error;
      await this.#client.query('ROLLBACK TO SAVEPOINT understudy_truncate');
      for (const target of targets) {
        await this.#client.query(await this.#sql(target, deleteAllSql(target)));
      }
    }
  }

  readonly #layer = (target: ApplyTarget, row: WholeRow): Layer => {
    const { columnIds, values } = this.#decoder.rowValues(row);
    // Refuses a row whose columns are not the table's.
    this.#targets.columnOrder(target, columnIds);
    return layerOf(columnIds as readonly ColumnId[], values, row.unchanged);
  };

  async #readBases({ table, columnIds, keys }: BaseQuery<ApplyTarget>): Promise<BaseRows> {
    const columns = columnIds.map((id) => table.columns.findIndex((column) => column.id === id));
    const { rows } = await this.#client.query<PgText[]>({
      text: await this.#sql(table, rowsByKeySql(table, columns), 1 + columns.length),
      values: columnsOf(table, keys),
      rowMode: 'array',
    });
    const bases: (Layer | null)[] = keys.map(() => null);
    for (const [place, ...values] of rows) {
      bases[Number(place) - 1] = layerOf(columnIds, values, null);
    }
    return bases;
  }

  async #removedBy(
    table: ApplyTarget,
    keys: readonly (readonly string[])[],
    by: readonly RowRecord[],
  ): Promise<BaseRows> {
    const { rows } = await this.#client.query<PgText[]>({
      text: await this.#sql(table, removedRowsSql(table), 1),
      values: [...columnsOf(table, keys), ...keysOf(table, by)],
      rowMode: 'array',
    });
    const removed = new Set(rows.map(([place]) => Number(place) - 1));
    return keys.map((_, i) => (removed.has(i) ? noValues : null));
  }

  async #deleteRows(target: ApplyTarget, rows: readonly RowRecord[]): Promise<void> {
    if (rows.length === 0) return;
    const text = await this.#sql(target, deleteSql(target));
    for (let i = 0; i < rows.length; i += statementRowsMax) {
      const part = rows.slice(i, i + statementRowsMax);
      await this.#client.query({ text, values: keysOf(target, part) });
    }
  }

  async #writeRows(
    writer: RowWriter,
    target: ApplyTarget,
    rows: readonly WholeRow[],
  ): Promise<void> {
    for (const row of rows) {
      const { columnIds, values } = this.#decoder.rowValues(row);
      const order = this.#targets.columnOrder(target, columnIds);
      if (writer.add(values, order)) await writer.flush();
    }
  }
}

const noValues: Layer = new Map();

function columnsOf({ identity }: ApplyTarget, keys: readonly (readonly string[])[]): PgText[][] {
  return identity.map((_, k) => keys.map((key) => key[k] ?? null));
}

/** One array per identity column. */
function keysOf({ identity }: ApplyTarget, rows: readonly RowRecord[]): string[][] {
  return identity.map((_, k) => rows.map((row) => row.identity[k] ?? ''));
}

function allColumns({ columns }: ApplyTarget): readonly number[] {
  return columns.map((_, column) => column);
}

/** How rows get past others that conflict with them. */
type Way = 'upsert' | 'replace' | 'clear';

function nextWay(way: Way, isResnapshot: boolean): Way | null {
  if (way === 'upsert') return 'replace';
  // rule: unseen-row-gives-way
  return way === 'replace' && isResnapshot ? 'clear' : null;
}

function isConflict(error: unknown): boolean {
  return error instanceof DatabaseError && conflictCodes.includes(error.code ?? '');
}

/**
 * Errors of the connection or the server (08, 53, 57), timeouts of a transaction (25P),
 * serialization failures and deadlocks (40) and lock timeouts pass; any other SQLSTATE is about a
 * row.
 */
function refused(error: unknown, writing: ApplyTarget | null): unknown {
  if (!(error instanceof DatabaseError)) return error;
  const code = error.code ?? '';
  // rule: deadlock-is-retried
  if (/^(08|25P|53|57|40|55P03)/.test(code)) {
    return batchNotApplied(code, firstLine(error.message), error);
  }
  const named = [error.schema, error.table].filter((part) => part !== undefined).join('.');
  const table = writing === null ? null : displayName(writing);
  return rowRefused(
    {
      sqlState: code,
      table: named === '' ? table : named,
      constraint: error.constraint ?? null,
      inFunction: functionIn(error.where ?? ''),
    },
    error,
  );
}

/** `PL/pgSQL function public.f(integer) line 1 at RETURN`, `SQL function "f" during inlining`. */
function functionIn(context: string): string | null {
  // Not those by which rows are written as their owner.
  const inPlpgsql = /^PL\/pgSQL function (?!understudy_rows\.)([^\n]*\)) line/m.exec(context);
  const inSql = /^SQL function ("(?:[^"]|"")*")/m.exec(context);
  return inPlpgsql?.[1] ?? inSql?.[1] ?? null;
}

function firstLine(text: string): string {
  return text.split('\n', 1)[0] ?? '';
}
