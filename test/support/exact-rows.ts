/**
 * Rows of two databases, compared cell by cell: by the text that Postgres prints under settings
 * that are the same everywhere, and by the type's binary form, in which nothing is rounded or
 * folded. Flows in: a fleet and a query; flows out: an assertion that names the first cell that
 * differs. Nothing here is of the product's own code.
 */
import pg from 'pg';
import * as assert from 'uvu/assert';
import type { Fleet } from './fleet.ts';
import type { NodeName } from './fleet-options.ts';

type Cells = readonly (string | null)[];

export interface Texts {
  readonly columns: readonly string[];
  readonly rows: readonly Cells[];
}

const settings = [
  ...['client_encoding=UTF8', 'DateStyle=ISO', 'TimeZone=UTC', 'IntervalStyle=postgres'],
  ...['extra_float_digits=3', 'bytea_output=hex', 'lc_monetary=C', 'search_path='],
  ...['quote_all_identifiers=off'],
];

export class ExactReader {
  readonly #clients = new Map<NodeName, pg.Client>();
  readonly #fleet: Fleet;

  constructor(fleet: Fleet) {
    this.#fleet = fleet;
  }

  /** Every value as the text of the server. */
  async read(node: NodeName, text: string): Promise<Texts> {
    const client = this.#clients.get(node) ?? (await this.#connect(node));
    const { fields, rows } = await client.query<(string | null)[]>({ text, rowMode: 'array' });
    return { columns: fields.map(({ name }) => name), rows };
  }

  /** The query gives the same cells on every node; its first column names the row. */
  async assertSame(text: string, what: string, leader: NodeName = 'a'): Promise<Texts> {
    const wanted = await this.read(leader, text);
    for (const node of this.#fleet.nodes.filter((one) => one !== leader)) {
      const found = await this.read(node, text);
      const difference = firstDifference(wanted, found);
      assert.is(difference, null, `${what}, node ${node}: ${difference}\n${this.#fleet.logs()}`);
    }
    return wanted;
  }

  async close(): Promise<void> {
    for (const client of this.#clients.values()) await client.end();
  }

  async #connect(node: NodeName): Promise<pg.Client> {
    const url = new URL(this.#fleet.url(node));
    url.searchParams.set('options', settings.map((setting) => `-c ${setting}`).join(' '));
    const types = { getTypeParser: () => (value: string) => value };
    const client = new pg.Client({ connectionString: url.href, types });
    await client.connect();
    this.#clients.set(node, client);
    return client;
  }
}

function firstDifference(wanted: Texts, found: Texts): string | null {
  for (let at = 0; at < Math.max(wanted.rows.length, found.rows.length); at += 1) {
    const [left, right] = [wanted.rows[at], found.rows[at]];
    if (left === undefined) return `the row ${right?.[0]} is too much`;
    if (right === undefined) return `the row ${left[0]} is missing`;
    for (const [column, name] of wanted.columns.entries()) {
      if (left[column] === right[column]) continue;
      const [leader, follower] = [left[column], right[column]].map((one) => JSON.stringify(one));
      return `row ${left[0]}, ${name} is ${follower} and not ${leader}`;
    }
  }
  return null;
}
