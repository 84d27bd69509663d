/**
 * Runs statements on the rows of a table as the table's owner. Flows in: a statement that names a
 * table, with its parameters; flows out: one with the same parameters and answers that runs it in a
 * function of the owner. A table's owner decides what runs with its rows: constraints, generated
 * columns, expressions of indexes, domains. It promises that nothing of that runs as the agent's
 * superuser, and that it leaves nothing in the session that later statements or the commit would
 * run: each function has a wrapper of the agent's own, which closes cursors and resets settings as
 * soon as the owner's function has returned. What else could be left is DDL, which an event trigger
 * refuses (schemas/sql/002-row-functions.sql). A prepared statement may be: the applier's session
 * uses none by name.
 *
 * Tables of superusers are written directly, and so are all where the agent is no superuser: its
 * role has no more rights than its URL was given.
 */
import { readFile } from 'node:fs/promises';
import type { Client } from 'pg';
import {
  inTransaction,
  quoteIdentifier,
  quoteLiteral,
  useNoStatementNames,
} from '../../catalog/postgres-session.ts';
import { dropRowFunctions, rowRoleName } from '../../catalog/row-roles.ts';
import { deferredTriggerFires } from '../../errors/prerequisite.ts';
import { packageFile } from '../../package-files.ts';

/** An owner as which statements are run. */
export interface RowOwner {
  readonly oid: string;
  readonly name: string;
  /** Row security is forced on the table, and would hide rows from its owner too. */
  readonly forced: boolean;
}

interface ServerFacts {
  readonly isSuperuser: boolean;
  readonly hasTransactionTimeout: boolean;
}

const schemaFile = packageFile('schemas/sql/002-row-functions.sql');

export class RowFunctions {
  readonly #client: Client;
  readonly #server: ServerFacts;
  /** What calls the function of a statement, by owner and statement. */
  #committed: ReadonlyMap<string, string> = new Map();
  #pending = new Map<string, string>();
  #count = 0;
  #checked = false;

  private constructor(client: Client, server: ServerFacts) {
    this.#client = client;
    this.#server = server;
  }

  /** Outside of a transaction. Functions of earlier sessions are dropped. */
  static async open(client: Client): Promise<RowFunctions> {
    const { rows } = await client.query<Record<string, string>>(
      `SELECT r.rolsuper AS super, EXISTS (
         SELECT FROM pg_catalog.pg_settings WHERE name = 'transaction_timeout') AS timeout
       FROM pg_catalog.pg_roles r WHERE r.rolname = session_user`,
    );
    const isSuperuser = rows[0]?.super === 't';
    const hasTransactionTimeout = rows[0]?.timeout === 't';
    if (isSuperuser) {
      const sql = await readFile(schemaFile, 'utf8');
      await inTransaction(client, () => client.query(sql));
      await dropRowFunctions(client);
    }
    return new RowFunctions(client, { isSuperuser, hasTransactionTimeout });
  }

  committed(): void {
    this.#committed = new Map(this.#pending);
  }

  forgetUncommitted(): void {
    if (this.#pending.size !== this.#committed.size) this.#pending = new Map(this.#committed);
  }

  /** By the OIDs of the tables; those that are not in it are written directly. */
  async owners(tables: readonly { readonly oid: number }[]): Promise<Map<number, RowOwner>> {
    if (!this.#server.isSuperuser || tables.length === 0) return new Map();
    const { rows } = await this.#client.query<Record<string, string>>(
      `SELECT c.oid AS table_oid, r.oid, r.rolname AS name,
         c.relrowsecurity AND c.relforcerowsecurity AND NOT r.rolbypassrls AS forced
       FROM pg_catalog.pg_class c JOIN pg_catalog.pg_roles r ON r.oid = c.relowner
       WHERE c.oid = ANY ($1::pg_catalog.oid[]) AND NOT r.rolsuper`,
      [tables.map(({ oid }) => oid)],
    );
    return new Map(
      rows.map(({ table_oid, oid = '', name = '', forced }) => {
        return [Number(table_oid), { oid, name, forced: forced === 't' }];
      }),
    );
  }

  /**
   * `text` has arrays as its parameters, and gives `results` columns, which come as the text that
   * their types print. It creates functions where they are missing, in the caller's transaction.
   */
  async statement(owner: RowOwner | null, text: string, results = 0): Promise<string> {
    const statement = results === 0 ? text : asTexts(text, results);
    // rule: rows-as-owner
    if (owner === null) return statement;
    const key = `${owner.oid} ${owner.forced} ${statement}`;
    const known = this.#pending.get(key);
    if (known !== undefined) return known;
    // Code of the owner may prepare another statement under a name of ours.
    // rule: no-named-statements-after-owner
    useNoStatementNames(this.#client);
    await this.#refuseDeferredTriggers();
    const call = await this.#create(owner, statement, results);
    this.#pending.set(key, call);
    return call;
  }

  async #create(owner: RowOwner, statement: string, results: number): Promise<string> {
    this.#count += 1;
    const role = owner.forced ? await this.#roleOf(owner) : owner.name;
    const { body, types, argumentList } = parametersOf(statement);
    const [owned, wrapper] = ['owned', 'apply'].map(
      (kind) => `understudy_rows.${kind}_${this.#count}`,
    );
    const signature = `(${types.join(', ')})`;
    const passed = types.map((_, i) => `$${i + 1}`).join(', ');
    const given = results === 0 ? 'void' : `TABLE (${outNames(results).join(' text, ')} text)`;
    const run =
      results === 0
        ? [body, `PERFORM ${owned}(${passed})`]
        : [body, `SELECT * FROM ${owned}(${passed})`];
    const [ownerRuns, agentRuns] = run.map((one) => (results === 0 ? one : `RETURN QUERY ${one}`));
    // The plans of a conflicting or a plain insert do not depend on the size of any table.
    const planMode = /^INSERT /.test(statement) ? 'force_generic_plan' : 'force_custom_plan';
    // Nothing is planned and no name is looked up between the owner's function and these.
    // rule: session-clean-after-owner
    const resets = [
      `EXECUTE 'CLOSE ALL'`,
      'RESET ALL',
      ...(this.#server.hasTransactionTimeout ? ['SET transaction_timeout = 0'] : []),
    ];
    const refusal = `RAISE EXCEPTION 'the function of this table has another owner now'`;
    // REASSIGN OWNED may have given it to a superuser.
    // rule: function-of-the-owner
    const isOwner = `IF current_user <> ${quoteLiteral(role)} THEN ${refusal}; END IF`;
    await this.#function(`${owned}${signature}`, given, [
      'SECURITY DEFINER',
      'SET search_path = pg_catalog, pg_temp',
      'SET row_security = off',
      `SET plan_cache_mode = ${planMode}`,
      bodyOf(isOwner, ownerRuns ?? ''),
    ]);
    await this.#client.query(
      `ALTER FUNCTION ${owned}${signature} OWNER TO ${quoteIdentifier(role)}`,
    );
    await this.#function(`${wrapper}${signature}`, given, [bodyOf(agentRuns ?? '', ...resets)]);
    if (results === 0) return `SELECT ${wrapper}(${argumentList})`;
    const columns = columnNames(results).join(', ');
    return `SELECT ${columns} FROM ${wrapper}(${argumentList}) AS r (${columns})`;
  }

  async #function(signature: string, returns: string, rest: readonly string[]): Promise<void> {
    await this.#client.query(
      `CREATE FUNCTION ${signature} RETURNS ${returns} LANGUAGE plpgsql ${rest.join(' ')}`,
    );
    await this.#client.query(`REVOKE ALL ON FUNCTION ${signature} FROM PUBLIC`);
  }

  /** A member of the owner that row security does not concern; it cannot log in. */
  async #roleOf(owner: RowOwner): Promise<string> {
    const name = await rowRoleName(this.#client, owner.oid);
    const { rowCount } = await this.#client.query(
      'SELECT FROM pg_catalog.pg_roles WHERE rolname = $1',
      [name],
    );
    if (rowCount === 0) {
      const role = quoteIdentifier(name);
      await this.#client.query(`CREATE ROLE ${role} NOLOGIN INHERIT BYPASSRLS`);
      await this.#client.query(`GRANT ${quoteIdentifier(owner.name)} TO ${role}`);
    }
    return name;
  }

  /**
   * Code of an owner may write to any table of its own, and a deferred trigger runs at the commit,
   * as the user that logged in. Those of published tables are suspended; since then no DDL of an
   * owner was possible.
   */
  async #refuseDeferredTriggers(): Promise<void> {
    if (this.#checked) return;
    const { rows } = await this.#client.query<Record<'table' | 'trigger', string>>(
      `SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS table,
         pg_catalog.quote_ident(t.tgname) AS trigger
       FROM pg_catalog.pg_trigger t
       JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
       JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
       JOIN pg_catalog.pg_roles r ON r.oid = c.relowner
       WHERE NOT t.tgisinternal AND t.tgdeferrable AND t.tgenabled IN ('A', 'R')
         AND NOT r.rolsuper
       LIMIT 1`,
    );
    // rule: no-deferred-trigger
    if (rows[0] !== undefined) throw deferredTriggerFires(rows[0].table, rows[0].trigger);
    this.#checked = true;
  }
}

function columnNames(count: number): string[] {
  return Array.from({ length: count }, (_, i) => `c${i}`);
}

/** Variables of the function: no column of a user's has such a name, or the column counts. */
function outNames(count: number): string[] {
  return Array.from({ length: count }, (_, i) => `"understudy ${i}"`);
}

function bodyOf(...statements: readonly string[]): string {
  const lines = statements.map((statement) => `${statement};\n`);
  return `AS ${quoteLiteral(`#variable_conflict use_column\nBEGIN\n${lines.join('')}END`)}`;
}

/**
 * By the types' output functions: a cast may be a function of the type's owner. num_nulls, since IS
 * NULL is also true for a composite value whose fields are all null.
 */
function asTexts(text: string, results: number): string {
  const names = columnNames(results);
  const values = names.map((name) => {
    const value = `q.${name}`;
    return `CASE pg_catalog.num_nulls(${value}) WHEN 0 THEN pg_catalog.format('%s', ${value}) END`;
  });
  return `SELECT ${values.join(', ')} FROM (${text}) AS q (${names.join(', ')})`;
}

interface Parameterised {
  readonly body: string;
  /** The types of the function's parameters. */
  readonly types: readonly string[];
  readonly argumentList: string;
}

/** A function takes 100 parameters, and a table may have more columns. */
const parametersMax = 100;
const quotedOrParameter = /"(?:[^"]|"")*"|'(?:[^']|'')*'|\$(\d+)(::pg_catalog\.text\[\])?/g;

/**
 * Arrays of other types than text are given as one text, for their own input function; so are all
 * where they are too many: in one array then.
 */
function parametersOf(text: string): Parameterised {
  const types: string[] = [];
  for (const [, digits, asTexts] of text.matchAll(quotedOrParameter)) {
    if (digits === undefined) continue;
    types[Number(digits) - 1] = asTexts === undefined ? 'text' : 'text[]';
  }
  if (types.length <= parametersMax) {
    const argumentList = types.map((type, i) => `$${i + 1}::pg_catalog.${type}`).join(', ');
    return { body: text, types, argumentList };
  }
  const body = text.replace(quotedOrParameter, (found, digits?: string, asTexts = '') => {
    return digits === undefined ? found : `$1[${digits}]${asTexts}`;
  });
  const all = types.map((_, i) => `$${i + 1}`).join(', ');
  return { body, types: ['text[]'], argumentList: `ARRAY[${all}]::pg_catalog.text[]` };
}
