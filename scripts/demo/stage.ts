/**
 * The environment of the demo: a sandbox with a database of the shop and its tables on every node,
 * and an understudy.yaml that names all of it.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Client } from 'pg';
import { stringify } from 'yaml';
import { ddlSetting } from '../sandbox/fitting-dump.ts';
import { type PostgresServer, type Sandbox, startSandbox } from '../sandbox/sandbox.ts';
import type { ShopNode } from './shop-nodes.ts';

export interface Stage {
  readonly sandbox: Sandbox;
  readonly nodes: readonly ShopNode[];
  /** The configuration; it holds the password. */
  readonly config: string;
}

const database = 'shop';
/** More than one, so that the rows of one transaction are spread over several. */
const partitions = 4;

export async function setStage(keep: boolean, log: (line: string) => void): Promise<Stage> {
  const sandbox = await startSandbox({ keep, log: (line) => log(`  ${line}`) });
  const nodes = sandbox.postgres.map((server) => ({
    name: server.name,
    url: server.url(database),
  }));
  return { sandbox, nodes, config: join(sandbox.dir, 'understudy.yaml') };
}

/** Separate from the start, so that after a failure here the sandbox can be stopped. */
export async function furnish({ sandbox, nodes, config }: Stage): Promise<void> {
  const schema = await readFile(new URL('./shop-schema.sql', import.meta.url), 'utf8');
  await Promise.all(sandbox.postgres.map((server) => createShop(server, schema)));
  const registry = sandbox.registry;
  const text = stringify({
    cluster: 'shop',
    nodes: Object.fromEntries(nodes.map(({ name, url }) => [name, { url }])),
    kafka: { brokers: [...sandbox.brokers], partitions },
    ...(registry === null ? {} : { registry: { url: registry.url } }),
    ...(await ddlSetting(nodes[0]?.url ?? '')),
  });
  await writeFile(config, text, { mode: 0o600 });
}

async function createShop(server: PostgresServer, schema: string): Promise<void> {
  await withClient(server.url(), `CREATE DATABASE ${database}`);
  await withClient(server.url(database), schema);
}

async function withClient(connectionString: string, sql: string): Promise<void> {
  const client = new Client({ connectionString });
  await client.connect();
  try {
    await client.query(sql);
  } finally {
    await client.end();
  }
}
