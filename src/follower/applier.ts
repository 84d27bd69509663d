/**
 * Writes steps into the follower's tables, together with the position they lead to. Flows in: final
 * rows per table and barriers; flows out: one committed transaction, or none. It runs under
 * session_replication_role = replica, so that ordinary triggers, foreign keys and the write guard
 * stay silent; deletes come before upserts, because keys may differ in bytes and be equal in
 * Postgres.
 */
import { type Client, DatabaseError } from 'pg';
import { inTransaction } from '../catalog/postgres-session.ts';
import type { PgText, Point, RelationId } from '../change/change.ts';
import { UnderstudyError } from '../errors.ts';
import { hit } from '../failpoints.ts';
import type { RecordDecoder } from '../topic/record-decoder.ts';
import type { RowRecord } from '../topic/stream-record.ts';
import {
  type ApplyTarget,
  deleteAllSql,
  deleteSql,
  insertSql,
  truncateSql,
  upsertSql,
} from './apply-sql.ts';
import type { ApplyTargets } from './apply-targets.ts';
import type { ApplyStep, TableRows } from './coalesce.ts';
import { type FollowerPosition, movePosition, saveLabel } from './follower-state.ts';

/** One statement takes at most this many rows and about this many characters of values. */
const statementRowsMax = 4_000;
const statementCharsMax = 16 * 1024 * 1024;

/** Unique and exclusion conflicts, and an update of a GENERATED ALWAYS column. */
const conflictCodes: readonly string[] = ['23505', '23P01', '428C9'];
const truncateRefusedCode = '0A000';

type UpsertRow = RowRecord & { value: Buffer };

export class Applier {
  readonly #client: Client;
  readonly #targets: ApplyTargets;
  readonly #decoder: RecordDecoder;

  constructor(client: Client, targets: ApplyTargets, decoder: RecordDecoder) {
    this.#client = client;
    this.#targets = targets;
    this.#decoder = decoder;
  }

  /**
   * Applies all steps and moves the position, or changes nothing. Two rows that swap a unique value
   * conflict when they are upserted one after the other; then all rows of the batch are deleted
   * first and inserted anew.
   */
  async apply(
    steps: readonly ApplyStep[],
    from: FollowerPosition,
    to: FollowerPosition,
    labelled: readonly Point[],
  ): Promise<void> {
    try {
      await this.#applyOnce(steps, from, to, labelled, false);
    } catch (error) {
      if (!isConflict(error)) throw error;
      await this.#applyOnce(steps, from, to, labelled, true);
    }
  }

  async #applyOnce(
    steps: readonly ApplyStep[],
    from: FollowerPosition,
    to: FollowerPosition,
    labelled: readonly Point[],
    replace: boolean,
  ): Promise<void> {
    await hit('apply.before');
    try {
      await inTransaction(this.#client, async () => {
        for (const step of steps) await this.#step(step, replace);
        for (const point of labelled) await saveLabel(this.#client, point);
        await movePosition(this.#client, from, to);
        await hit('apply.before-commit');
      });
    } catch (error) {
      this.#targets.forgetUncommitted();
      if (!replace && isConflict(error)) throw error;
      throw refused(error);
    }
    this.#targets.committed();
    await hit('apply.after-commit');
  }

  async #step(step: ApplyStep, replace: boolean): Promise<void> {
    switch (step.kind) {
      case 'relation':
        return this.#targets.relation(step.relation);
      case 'truncate':
        return this.#truncate(step.relationIds);
      case 'rows': {
        const tables = step.tables.map((rows) => ({
          rows,
          target: this.#targets.get(rows.relationId),
        }));
        for (const { rows, target } of tables) await this.#deleteRows(target, rows, replace);
        for (const { rows, target } of tables) await this.#writeRows(target, rows.upserts, replace);
      }
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

  async #deleteRows(target: ApplyTarget, rows: TableRows, replace: boolean): Promise<void> {
    // Rows without an identity are new ones, each of them.
    if (target.identity.length === 0) return;
    const replaced = replace || target.replaceOnly ? rows.upserts : [];
    const all: readonly RowRecord[] = [...rows.deletes, ...replaced];
    const text = deleteSql(target);
    for (let i = 0; i < all.length; i += statementRowsMax) {
      const part = all.slice(i, i + statementRowsMax);
      const keys = target.identity.map((_, k) => part.map(({ identity }) => identity[k] ?? null));
      await this.#client.query({ text, values: keys });
    }
  }

  async #writeRows(
    target: ApplyTarget,
    rows: readonly UpsertRow[],
    replace: boolean,
  ): Promise<void> {
    const text = replace || target.replaceOnly ? insertSql(target) : upsertSql(target);
    let columns: PgText[][] = target.columns.map(() => []);
    let count = 0;
    let chars = 0;
    const flush = async (): Promise<void> => {
      if (count === 0) return;
      await this.#client.query({ text, values: columns });
      columns = target.columns.map(() => []);
      count = 0;
      chars = 0;
    };
    for (const row of rows) {
      const { columnIds, values } = this.#decoder.rowValues(row);
      const order = this.#targets.columnOrder(target, columnIds);
      for (let i = 0; i < order.length; i += 1) {
        const value = values[order[i] as number] ?? null;
        columns[i]?.push(value);
        chars += value?.length ?? 0;
      }
      count += 1;
      if (count >= statementRowsMax || chars >= statementCharsMax) await flush();
    }
    await flush();
  }
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
