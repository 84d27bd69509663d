/**
 * Fleets for `understudy check`, and the command itself as a person runs it. Flows in: a stack and
 * what shall be wrong; flows out: the exit code and the findings of a process that has ended.
 */
import { spawn } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import pg from 'pg';
import * as assert from 'uvu/assert';
import { stringify } from 'yaml';
import { ddlSetting } from '../../scripts/sandbox/fitting-dump.ts';
import type { Finding } from '../../src/fleet/preflight/finding.ts';
import { commandFile, type Said, saidBy } from './said.ts';
import type { Stack } from './stack.ts';

/** Nobody listens there. */
export const nobody = '127.0.0.1:9';
export const orders =
  'CREATE TABLE orders (id bigint PRIMARY KEY, total numeric(10,2), note varchar(20))';

export interface Fleet {
  readonly cluster: string;
  readonly urls: readonly string[];
  readonly brokers: readonly string[];
  readonly registryUrl: string;
  readonly kafka?: Readonly<Record<string, unknown>>;
  readonly ddl?: 'manual';
}

export interface Checked {
  readonly exit: number | null;
  readonly findings: readonly Finding[];
  readonly output: string;
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

/** Two databases that have the same table, and nothing wrong with them. */
export async function soundFleet(stack: Stack): Promise<Fleet> {
  const urls = await stack.createDatabases('check');
  await Promise.all(urls.map((url) => query(url, orders)));
  const { brokers, registryUrl } = stack;
  const setting = await ddlSetting(urls[0] ?? '');
  const cluster = stack.uniqueName('check');
  return { cluster, urls: urls.slice(0, 2), brokers, registryUrl, ...setting };
}

export async function understudy(
  directory: string,
  fleet: Fleet,
  words: readonly string[],
): Promise<Said> {
  const file = join(directory, `${fleet.cluster}.yaml`);
  const nodes = Object.fromEntries(fleet.urls.map((url, at) => ['abc'[at], { url }]));
  const { cluster, brokers, registryUrl, ddl } = fleet;
  const kafka = { brokers: [...brokers], ...fleet.kafka };
  const config = { cluster, nodes, kafka, registry: { url: registryUrl }, ...(ddl && { ddl }) };
  await writeFile(file, stringify(config));
  return saidBy(spawn(process.execPath, [commandFile, '--config', file, ...words]));
}

export async function checked(directory: string, fleet: Fleet): Promise<Checked> {
  const { code, stdout, stderr } = await understudy(directory, fleet, ['--json', 'check']);
  assert.is(stderr, '', stderr);
  const { findings } = JSON.parse(stdout) as { findings: readonly Finding[] };
  return { exit: code, findings, output: stdout };
}

/** The one error; warnings are left aside, unless there are no errors. */
export function only({ findings }: Checked): Finding {
  const errors = findings.filter(({ severity }) => severity === 'error');
  const [finding, ...more] = errors.length === 0 ? findings : errors;
  assert.ok(finding, 'something is found');
  assert.equal(more, []);
  return finding;
}
