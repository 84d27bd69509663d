/**
 * Writes steps into the follower's tables, together with the position they lead to. Flows in: final
 * rows per table and barriers; flows out: one committed transaction, or none. It runs under
 * session_replication_role = replica, so that ordinary triggers, foreign keys and the write guard
 * stay silent; deletes come before upserts, because keys may differ in bytes and be equal in
 * Postgres.
 */
import { type Client, DatabaseError } from 'pg';
import { inTransaction } from '../../catalog/postgres-session.ts';
import type { Point, RelationId } from '../../change/change.ts';
import { UnderstudyError } from '../../errors/understudy-error.ts';
import { hit } from '../../failpoints.ts';
import type { RecordDecoder } from '../../topic/records/decoder.ts';
import type { RowRecord } from '../../topic/records/stream-record.ts';
import { endBootstrap } from '../state/bootstrap-state.ts';
import { type FollowerPosition, movePosition, saveLabel } from '../state/follower-state.ts';
import { type ApplyTarget, deleteAllSql, deleteSql, truncateSql } from './apply-sql.ts';
import type { ApplyTargets } from './apply-targets.ts';
import type { ApplyStep } from './coalesce.ts';
import { finishedAt, rowsThatCame } from './rereads.ts';
import { type Bases, basesMax, RowBases } from './row-bases.ts';
import type { MayLackBase, PartialRow, TableRows, WholeRow } from './row-fold.ts';
import { RowWriter, statementRowsMax } from './row-writer.ts';

/** Unique and exclusion conflicts, and an update of a GENERATED ALWAYS column. */
const conflictCodes: readonly string[] = ['23505', '23P01', '428C9'];
const truncateRefusedCode = '0A000';

/** Where a transaction leads, and what it may rely on. */
interface ApplyMove {
  readonly from: FollowerPosition;
  readonly to: FollowerPosition;
  readonly labelled: readonly Point[];
  /** A partial row of such a table that has no base here is left out: its row comes later. */
  readonly mayLackBase: MayLackBase;
  /** Whether a node that is being built is exact from there on. */
  readonly becomesExact?: boolean;
}

/** What to apply, from the start again at each call: a large batch is read again meanwhile. */
export type ApplySteps = () => Iterable<ApplyStep> | AsyncIterable<ApplyStep>;

export class Applier {
  readonly #client: Client;
  readonly #targets: ApplyTargets;
  readonly #decoder: RecordDecoder;
  readonly #bases: RowBases;

  constructor(client: Client, targets: ApplyTargets, decoder: RecordDecoder) {
    this.#client = client;
    this.#targets = targets;
    this.#decoder = decoder;
    this.#bases = new RowBases(client, targets, decoder);
  }

  /**
   * Applies all steps and moves the position, or changes nothing; gives the number of rows. Two
   * rows that swap a unique value conflict when they are upserted one after the other; then the
   * steps are asked for once more, and all rows of each are deleted first and inserted anew. What
   * is still in the way of a table that is read anew may be a row that is no more: then those that
   * have not come again yet go first.
   */
  async apply(steps: ApplySteps, move: ApplyMove): Promise<number> {
    const { from, to, labelled, mayLackBase, becomesExact = false } = move;
    const save = async (): Promise<void> => {
      await this.#finishRereads(to);
      for (const point of labelled) await saveLabel(this.#client, point);
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
        if (way === 'clear') await this.#clearRereads();
        for await (const step of steps()) {
          rows += await this.#step(step, way, mayLackBase);
          await hit('apply.after-step');
        }
        await save();
        await hit('apply.before-commit');
      });
    } catch (error) {
      const next = nextWay(way, this.#targets.rereads.open.length > 0);
      this.#targets.forgetUncommitted();
      if (next !== null && isConflict(error)) return { next };
      throw refused(error);
    }
    this.#targets.committed();
    await hit('apply.after-commit');
    return { rows };
  }

  async #clearRereads(): Promise<void> {
    const { rereads } = this.#targets;
    for (const id of rereads.open) await rereads.removeUnseen(this.#targets.get(id));
  }

  async #finishRereads(to: FollowerPosition): Promise<void> {
    const { rereads } = this.#targets;
    for (const id of finishedAt(to, rereads.open)) await rereads.finish(this.#targets.get(id));
  }

  /** Gives the number of rows that were written or deleted. */
  async #step(step: ApplyStep, way: Way, mayLackBase: MayLackBase): Promise<number> {
    const replace = way !== 'upsert';
    switch (step.kind) {
      case 'reread': {
        const target = this.#targets.getOfRows(step.relationId);
        await this.#targets.rereads.begin(target);
        if (way === 'clear') await this.#targets.rereads.removeUnseen(target);
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
          target: this.#targets.getOfRows(rows.relationId),
        }));
        // What a key change or a replacement takes away is read before anything is.
        const early = await this.#readEarly(tables, replace);
        for (const { rows, target } of tables) await this.#deleteRows(target, rows, replace);
        for (const { rows, target } of tables) {
          const writer = new RowWriter(this.#client, target, replace);
          await this.#writeRows(writer, target, rows.upserts);
          const mayLack = mayLackBase(rows.relationId);
          await this.#writePartials(writer, target, rows.partials, early, mayLack);
          await writer.flush();
          if (this.#targets.rereads.has(rows.relationId)) await this.#saw(target, rows);
        }
        return step.tables.reduce((sum, { deletes, upserts, partials }) => {
          return sum + deletes.length + upserts.length + partials.length;
        }, 0);
      }
    }
  }

  async #saw(target: ApplyTarget, rows: TableRows): Promise<void> {
    const all = rowsThatCame(rows);
    for (let i = 0; i < all.length; i += statementRowsMax) {
      const part = all.slice(i, i + statementRowsMax);
      await this.#targets.rereads.saw(target, keysOf(target, part));
    }
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
      for (const target of targets) await this.#client.query(deleteAllSql(target));
    }
  }

  async #readEarly(tables: readonly TableWork[], replace: boolean): Promise<Bases> {
    const early: Bases = new Map();
    for (const { rows, target } of tables) {
      const isEarly = replace || target.replaceOnly ? () => true : movesKey;
      const partials = rows.partials.filter(isEarly);
      for (let i = 0; i < partials.length; i += basesMax) {
        const part = partials.slice(i, i + basesMax);
        for (const [partial, base] of await this.#bases.read(target, part))
          early.set(partial, base);
      }
    }
    return early;
  }

  async #deleteRows(target: ApplyTarget, rows: TableRows, replace: boolean): Promise<void> {
    // Rows without an identity are new ones, each of them.
    if (target.identity.length === 0) return;
    const replaced: readonly RowRecord[] =
      replace || target.replaceOnly
        ? [...rows.upserts, ...rows.partials.map(({ layers }) => layers[0])]
        : [];
    const all = [...rows.deletes, ...replaced];
    const text = deleteSql(target);
    for (let i = 0; i < all.length; i += statementRowsMax) {
      const part = all.slice(i, i + statementRowsMax);
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

  async #writePartials(
    writer: RowWriter,
    target: ApplyTarget,
    partials: readonly PartialRow[],
    early: Bases,
    mayLack: boolean,
  ): Promise<void> {
    const order = target.columns.map((_, column) => column);
    for (let i = 0; i < partials.length; i += basesMax) {
      const part = partials.slice(i, i + basesMax);
      const late = await this.#bases.read(
        target,
        part.filter((partial) => !early.has(partial)),
      );
      for (const partial of part) {
        const base = early.get(partial) ?? late.get(partial) ?? null;
        if (mayLack && partial.base !== null && base === null) continue;
        const values = this.#bases.complete(target, partial, base);
        if (writer.add(values, order)) await writer.flush();
      }
    }
  }
}

interface TableWork {
  readonly rows: TableRows;
  readonly target: ApplyTarget;
}

/** One array per identity column. */
function keysOf({ identity }: ApplyTarget, rows: readonly RowRecord[]): string[][] {
  return identity.map((_, k) => rows.map((row) => row.identity[k] ?? ''));
}

/** How rows get past others that are in their way. */
type Way = 'upsert' | 'replace' | 'clear';

function nextWay(way: Way, isReadAnew: boolean): Way | null {
  if (way === 'upsert') return 'replace';
  return way === 'replace' && isReadAnew ? 'clear' : null;
}

/** Whether the row that completes it stands under a key that this step may take away. */
function movesKey({ layers, base }: PartialRow): boolean {
  return base !== null && base.join('\0') !== layers[0].identity.join('\0');
}

function isConflict(error: unknown): boolean {
  return error instanceof DatabaseError && conflictCodes.includes(error.code ?? '');
}

/**
 * Classes 08 and 57 and serialization failures pass; anything else Postgres says is about a row.
 */
function refused(error: unknown): unknown {
  if (!(error instanceof DatabaseError)) return error;
  const code = error.code ?? '';
  if (/^(08|53|57|40|55P03)/.test(code)) {
    return new UnderstudyError(
      'POSTGRES_UNREACHABLE',
      `the follower’s Postgres did not finish a batch (SQLSTATE ${code}): ` +
        firstLine(error.message),
      'The agent tries again by itself; see the log of that Postgres server.',
      error,
    );
  }
  const table = [error.schema, error.table].filter((part) => part !== undefined).join('.');
  const constraint = error.constraint === undefined ? '' : `, constraint ${error.constraint}`;
  const place = table === '' ? constraint : `, table ${table}${constraint}`;
  return new UnderstudyError(
    'ROW_REFUSED',
    `this node refuses a row of the stream (SQLSTATE ${code}${place})`,
    'Make the table as it is on the leader (see the Postgres log for the row), then start ' +
      'the agent again.',
    error,
  );
}

function firstLine(text: string): string {
  return text.split('\n', 1)[0] ?? '';
}
