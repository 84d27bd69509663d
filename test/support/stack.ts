/**
 * The servers a test file works with. Flows in: the addresses the test runner passes in the
 * environment (one sandbox for all files), or nothing, and then a private sandbox is started. Flows
 * out: fresh databases with names nobody else has, and at `close` nothing that was made here is
 * left.
 */
import { randomBytes } from 'node:crypto';
import pg from 'pg';
import {
  type PostgresServer,
  type Sandbox,
  type SandboxOptions,
  startSandbox,
} from '../../scripts/sandbox/sandbox.ts';
import { cleanUp } from './clean-up.ts';
import { until } from './until.ts';

export interface StackServer {
  /** The superuser's URL of a database on this server. */
  url(database: string): string;
  readonly superuserUrl: string;
}

export interface Stack {
  readonly postgres: readonly StackServer[];
  readonly brokers: readonly string[];
  readonly registryUrl: string;
  /**
   * One new database on every server, all of the same name; their URLs in server order. `clauses`
   * stand behind the name in CREATE DATABASE, in server order.
   */
  createDatabases(prefix: string, clauses?: readonly string[]): Promise<readonly string[]>;
  /** `prefix` and six random characters: fits a cluster name, a database, a topic. */
  uniqueName(prefix: string): string;
  close(): Promise<void>;
}

export interface StackOptions {
  /** Servers the file needs; default 2. More may be there. */
  readonly postgres?: number;
}

/** Long enough for a busy machine to end the sessions of a database. */
const statementMaxMs = 60_000;
const quiet = (): void => undefined;

export async function useStack(options: StackOptions = {}): Promise<Stack> {
  const count = options.postgres ?? 2;
  const named = fromEnvironment();
  if (named !== undefined && named.urls.length >= count) {
    return new OpenStack(named.urls, named.brokers, named.registryUrl, undefined);
  }
  const sandbox = await startSandbox({ postgres: count, log: quiet });
  const urls = sandbox.postgres.map((server) => server.url());
  return new OpenStack(urls, sandbox.brokers, sandbox.registry?.url ?? '', sandbox);
}

export interface OwnServer {
  readonly server: PostgresServer;
  close(): Promise<void>;
}

/**
 * A Postgres server of the test's own, for whatever touches more than one database: to stop, kill
 * and configure it, and to hold prepared transactions, open transactions and their locks. On the
 * shared servers those would keep other tests from creating a slot or taking a snapshot.
 */
export async function ownServer(
  options: Pick<SandboxOptions, 'postgresVersion' | 'fsync'> = {},
): Promise<OwnServer> {
  const sandbox = await startSandbox({
    ...options,
    postgres: 1,
    brokers: 0,
    registry: false,
    log: quiet,
  });
  const server = sandbox.postgres[0];
  if (server === undefined) throw new Error('a sandbox with one server has one');
  return { server, close: () => cleanUp('a server of its own', () => sandbox.stop()) };
}

interface NamedServers {
  readonly urls: readonly string[];
  readonly brokers: readonly string[];
  readonly registryUrl: string;
}

/** All three or none: a half-named stack is a mistake, not a wish for a private one. */
function fromEnvironment(): NamedServers | undefined {
  const names = ['UNDERSTUDY_TEST_POSTGRES', 'UNDERSTUDY_TEST_KAFKA', 'UNDERSTUDY_TEST_REGISTRY'];
  const [urls = [], brokers = [], registry = []] = names.map((name) =>
    (process.env[name] ?? '')
      .split(',')
      .map((part) => part.trim())
      .filter((part) => part !== ''),
  );
  const set = [urls, brokers, registry].filter((parts) => parts.length > 0).length;
  if (set === 0) return undefined;
  if (set < names.length) throw new Error(`set all of ${names.join(', ')}, or none`);
  return { urls, brokers, registryUrl: registry[0] ?? '' };
}

/** A new database on a server of the test's own; it goes when the server does. Gives its URL. */
export async function createDatabaseOn(server: PostgresServer, prefix: string): Promise<string> {
  const name = uniqueName(prefix);
  await withClient(server.url(), async (client) => {
    await client.query(`CREATE DATABASE ${client.escapeIdentifier(name)}`);
  });
  return server.url(name);
}

function uniqueName(prefix: string): string {
  return `${prefix}${randomBytes(3).toString('hex')}`;
}

class OpenStack implements Stack {
  readonly postgres: readonly StackServer[];
  readonly brokers: readonly string[];
  readonly registryUrl: string;
  readonly #sandbox: Sandbox | undefined;
  readonly #databases: string[] = [];

  constructor(
    urls: readonly string[],
    brokers: readonly string[],
    registryUrl: string,
    sandbox: Sandbox | undefined,
  ) {
    this.postgres = urls.map((superuserUrl) => ({
      superuserUrl,
      url: (database: string) => withDatabase(superuserUrl, database),
    }));
    this.brokers = brokers;
    this.registryUrl = registryUrl;
    this.#sandbox = sandbox;
  }

  uniqueName(prefix: string): string {
    return uniqueName(prefix);
  }

  async createDatabases(
    prefix: string,
    clauses: readonly string[] = [],
  ): Promise<readonly string[]> {
    const name = this.uniqueName(prefix);
    this.#databases.push(name);
    await Promise.all(
      this.postgres.map((server, at) =>
        withClient(server.superuserUrl, async (client) => {
          const clause = clauses[at] ?? '';
          await client.query(`CREATE DATABASE ${client.escapeIdentifier(name)} ${clause}`);
        }),
      ),
    );
    return this.postgres.map((server) => server.url(name));
  }

  /** Fails the file, not its caller: see cleanUp. */
  async close(): Promise<void> {
    await cleanUp('the servers', () => this.#sandbox?.stop() ?? this.#dropDatabases());
  }

  async #dropDatabases(): Promise<void> {
    const left = await Promise.all(
      this.postgres.map((server) =>
        withClient(server.superuserUrl, async (client) => {
          const prepared = await rollBackPrepared(client, server, this.#databases);
          for (const name of this.#databases) await dropDatabase(client, name);
          return prepared;
        }),
      ),
    );
    const names = left.flat();
    if (names.length === 0) return;
    throw new Error(
      `prepared transactions were left on a shared server: ${names.join(', ')}. ` +
        'They keep every other test from its snapshot: use ownServer().',
    );
  }
}

/**
 * A database with a prepared transaction cannot be dropped. Gives the names of those there were.
 */
async function rollBackPrepared(
  client: pg.Client,
  server: StackServer,
  databases: readonly string[],
): Promise<readonly string[]> {
  const { rows } = await client.query<{ gid: string; database: string }>(
    'SELECT gid, database FROM pg_prepared_xacts WHERE database = ANY ($1)',
    [databases],
  );
  for (const { gid, database } of rows) {
    // It can only be ended in its own database.
    await withClient(server.url(database), async (own) => {
      await own.query(`ROLLBACK PREPARED ${own.escapeLiteral(gid)}`);
    });
  }
  return rows.map(({ gid, database }) => `${gid} in ${database}`);
}

/** A database with a replication slot cannot be dropped, not even by force: slots go first. */
async function dropDatabase(client: pg.Client, name: string): Promise<void> {
  // A walsender that was terminated releases its slot a moment later.
  const slots = async (): Promise<readonly string[]> => {
    const { rows } = await client.query<{ slot_name: string; active_pid: number | null }>(
      'SELECT slot_name, active_pid FROM pg_replication_slots WHERE database = $1',
      [name],
    );
    for (const slot of rows) {
      if (slot.active_pid !== null) {
        await client.query('SELECT pg_terminate_backend($1, 1000)', [slot.active_pid]);
      } else {
        await client.query(
          `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
           WHERE slot_name = $1 AND active_pid IS NULL`,
          [slot.slot_name],
        );
      }
    }
    return rows.map(({ slot_name }) => slot_name);
  };
  await until(`no slot in ${name}`, slots, { reached: (left) => left.length === 0 });
  await client.query(`DROP DATABASE IF EXISTS ${client.escapeIdentifier(name)} WITH (FORCE)`);
}

function withDatabase(url: string, database: string): string {
  const changed = new URL(url);
  changed.pathname = `/${encodeURIComponent(database)}`;
  return changed.href;
}

async function withClient<Result>(
  url: string,
  use: (client: pg.Client) => Promise<Result>,
): Promise<Result> {
  const client = new pg.Client({ connectionString: url, statement_timeout: statementMaxMs });
  // A connection that breaks while idle also fails the next query.
  client.on('error', () => undefined);
  await client.connect();
  try {
    return await use(client);
  } finally {
    await client.end();
  }
}

/** A session of an ordinary client. */
export async function connectTo(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url, application_name: 'application' });
  // A connection that breaks while idle also fails the next query.
  client.on('error', () => undefined);
  await client.connect();
  return client;
}
