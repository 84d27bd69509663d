/**
 * `npm run sandbox`: the real servers for a user or a script. It prints the addresses to stdout, as
 * lines for a shell or as one JSON object, and its progress to stderr, and writes an
 * understudy.yaml to the sandbox directory. It runs until Ctrl-C and then removes everything.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import pg from 'pg';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { exampleConfig, exportLines } from './example-config.ts';
import { ddlSetting } from './fitting-dump.ts';
import { type Sandbox, type SandboxOptions, startSandbox } from './sandbox.ts';

const usage = `Usage: npm run sandbox -- [options]

  --postgres N           Postgres servers, named a, b, c, … (3)
  --postgres-version V   system, 15, 16, 17 or 18; several with commas are used in turn (system)
  --brokers N            Kafka brokers: 0, 1 or 3 (1)
  --no-registry          no schema registry
  --fast-compaction      Kafka compacts within about a second
  --fsync                Postgres survives a power failure too
  --dir PATH             use this directory, not a new one below .sandbox/; removed at the end
  --keep                 keep the directory, with all logs
  --json                 one JSON object on stdout
`;

const databaseName = 'shop';

interface Options {
  readonly sandbox: SandboxOptions;
  readonly json: boolean;
}

function readOptions(args: readonly string[]): Options | 'help' {
  const { values } = parseArgs({
    args: [...args],
    options: {
      postgres: { type: 'string', default: '3' },
      'postgres-version': { type: 'string', default: 'system' },
      brokers: { type: 'string', default: '1' },
      'no-registry': { type: 'boolean', default: false },
      'fast-compaction': { type: 'boolean', default: false },
      fsync: { type: 'boolean', default: false },
      dir: { type: 'string' },
      keep: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) return 'help';
  const brokers = Number(values.brokers);
  if (brokers !== 0 && brokers !== 1 && brokers !== 3) {
    throw new UnderstudyError('USAGE', `--brokers ${values.brokers}`, 'Name 0, 1 or 3.');
  }
  const sandbox = {
    postgres: Number(values.postgres),
    postgresVersion: values['postgres-version'],
    brokers,
    registry: !values['no-registry'],
    fastCompaction: values['fast-compaction'],
    fsync: values.fsync,
    keep: values.keep,
    log: (line: string) => process.stderr.write(`${line}\n`),
    ...(values.dir === undefined ? {} : { dir: values.dir }),
  } as const;
  return { sandbox, json: values.json };
}

async function createDatabases(sandbox: Sandbox): Promise<void> {
  await Promise.all(
    sandbox.postgres.map(async (server) => {
      const client = new pg.Client({ connectionString: server.url() });
      await client.connect();
      try {
        await client.query(`CREATE DATABASE ${client.escapeIdentifier(databaseName)}`);
      } finally {
        await client.end();
      }
    }),
  );
}

async function describe(sandbox: Sandbox, json: boolean): Promise<void> {
  const nodes = sandbox.postgres.map((server) => ({
    name: server.name,
    url: server.url(databaseName),
  }));
  const registryUrl = sandbox.registry?.url ?? null;
  const config = join(sandbox.dir, 'understudy.yaml');
  const { brokers } = sandbox;
  const setting = await ddlSetting(nodes[0]?.url ?? '');
  const text = exampleConfig({ nodes, brokers, registryUrl, ...setting });
  // It holds the password.
  await writeFile(config, text, { mode: 0o600 });
  const env = { ...sandbox.env(), UNDERSTUDY_CONFIG: config };
  if (json) {
    const { dir } = sandbox;
    const processes = sandbox.processes();
    const answer = { dir, config, nodes, brokers, registry: registryUrl, env, processes };
    process.stdout.write(`${JSON.stringify(answer)}\n`);
    return;
  }
  for (const { name, url } of nodes) process.stderr.write(`  ${name}  ${url}\n`);
  process.stderr.write(`\nPaste into another terminal (${config} names all of it):\n\n`);
  process.stdout.write(exportLines(env));
  process.stderr.write('\nCtrl-C stops everything and removes the directory.\n');
}

/** The timer keeps the process alive: servers and the janitor's pipe alone do not. */
function untilSignal(): { readonly received: Promise<void> } {
  const keepAlive = setInterval(() => undefined, 60_000);
  const received = new Promise<void>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, resolve);
  }).finally(() => clearInterval(keepAlive));
  return { received };
}

async function main(): Promise<void> {
  const options = readOptions(process.argv.slice(2));
  if (options === 'help') {
    process.stdout.write(usage);
    return;
  }
  const sandbox = await startSandbox(options.sandbox);
  // From here on this process handles signals; the sandbox does too, and stops only once.
  const { received } = untilSignal();
  try {
    await createDatabases(sandbox);
    await describe(sandbox, options.json);
    await received;
  } finally {
    await sandbox.stop();
  }
  process.stderr.write(options.sandbox.keep === true ? `kept ${sandbox.dir}\n` : 'removed\n');
}

try {
  await main();
} catch (error) {
  const known = error instanceof UnderstudyError;
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.stderr.write(`HINT: ${known ? error.hint : 'npm run sandbox -- --help'}\n`);
  process.exitCode = known ? error.exit : 1;
}
process.exit();
