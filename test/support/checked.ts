/**
 * `understudy check` on databases that no cluster has yet: fleets with one table, the answer for a
 * configuration of which parts are replaced, and SQL on single databases.
 */
import pg from 'pg';
import * as assert from 'uvu/assert';
import type { Finding } from '../../src/fleet/preflight/finding.ts';
import { type Fleet, startFleet } from './fleet.ts';
import type { Stack } from './stack.ts';

export interface Checked {
  readonly exit: number | null;
  readonly findings: readonly Finding[];
  readonly output: string;
}

export const orders =
  'CREATE TABLE orders (id bigint PRIMARY KEY, total numeric(10,2), note varchar(20))';

/** Two databases that have the same table, and nothing wrong with them. */
export async function soundFleet(stack: Stack, fleets: Fleet[]): Promise<Fleet> {
  const fleet = await startFleet({ stack, tables: orders, init: false });
  fleets.push(fleet);
  return fleet;
}

/** `check` with parts of the configuration replaced. */
export async function checked(
  fleet: Fleet,
  changes: Record<string, unknown> = {},
): Promise<Checked> {
  const { config } = fleet;
  await fleet.configure({ ...config, ...changes });
  const { code, json, stdout, stderr } = await fleet.cli('check');
  await fleet.configure(config);
  assert.is(stderr, '', stderr);
  return { exit: code, findings: json.findings, output: stdout };
}

/** The configuration of nodes by their URLs: a, b. */
export function nodesAt(...urls: readonly string[]): Record<string, unknown> {
  return { nodes: Object.fromEntries(urls.map((url, at) => ['ab'[at], { url }])) };
}

export function kafkaWith(fleet: Fleet, changes: object): Record<string, unknown> {
  return { kafka: { ...(fleet.config['kafka'] as object), ...changes } };
}

/** The one error; warnings are left aside, unless there are no errors. */
export function only({ findings }: Checked): Finding {
  const errors = findings.filter(({ severity }) => severity === 'error');
  const [finding, ...more] = errors.length === 0 ? findings : errors;
  assert.ok(finding, 'there is a finding');
  assert.equal(more, []);
  return finding;
}

export async function query(url: string, ...statements: readonly string[]): Promise<string[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    const answers: string[] = [];
    for (const statement of statements) {
      const { rows } = await client.query<Record<string, unknown>>(statement);
      answers.push(JSON.stringify(rows));
    }
    return answers;
  } finally {
    await client.end();
  }
}

export async function onBoth(fleet: Fleet, ...statements: readonly string[]): Promise<void> {
  await Promise.all(fleet.nodes.map((node) => query(fleet.url(node), ...statements)));
}
