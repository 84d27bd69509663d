/**
 * `npm run sandbox`: the real stack for a person or a script. Flows in: options. Flows out: on
 * stdout the addresses as lines a shell can evaluate, or one JSON object; on stderr the progress;
 * in the sandbox directory an understudy.yaml that fits. Runs until Ctrl-C, then nothing is left.
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
  --postgres-version V   system, 15, 16, 17 or 18; several with commas are given in turn (system)
  --brokers N            Kafka brokers: 0, 1 or 3 (1)
  --no-registry          no schema registry
  --fast-compaction      Kafka compacts within about a second
  --fsync                Postgres survives a power cut too
  --dir PATH             instead of a new directory below .sandbox/; removed at the end
  --keep                 leave the directory behind, to look at the logs
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

/** The timer keeps the process: servers and the janitor's pipe on their own would let it end. */
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
  // From here on a signal is ours to answer; the sandbox hears it as well, and stops only once.
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
