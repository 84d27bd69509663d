/**
 * Reads the schema of a database with pg_dump, in an exported snapshot. It takes a node's URL and
 * the path of pg_dump, and returns the statements that create the same schema elsewhere, without
 * Understudy's own objects. A pg_dump that is missing, older than the server, or refused by it, is
 * one error with its remedy. The password is passed in the environment: no list of processes, log
 * or error has it.
 */
import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { dumpFailed, unusableDump } from '../../errors/schema-dump.ts';
import { redactText } from '../../redact.ts';
import { libpqEnvironment } from './libpq-environment.ts';
import type { SchemaPayload } from './schema-payload.ts';
import { splitStatements } from './sql-statements.ts';

interface DumpOptions {
  /** The program, by path or by a name on PATH. */
  readonly pgDump: string;
  readonly url: string;
  readonly node: string;
  /** Exported by a transaction that stays open during the dump. */
  readonly snapshot: string;
  /** server_version_num. */
  readonly serverVersion: number;
}

export type SchemaDump = Pick<SchemaPayload, 'serverVersion' | 'preData' | 'postData'>;

/** A schema of ten thousand tables takes a minute. */
const dumpMaxMs = 10 * 60_000;
const versionMaxMs = 10_000;
/** For a table that another session rewrites. */
const lockWaitMs = 60_000;
/** More than any schema, and more than records could hold. */
const outputBytesMax = 512 * 1024 * 1024;

export async function dumpSchema(options: DumpOptions): Promise<SchemaDump> {
  const { pgDump, url, node, serverVersion } = options;
  await requireFittingDump(pgDump, serverVersion);
  const { env, rootCertificates } = await libpqEnvironment(
    url,
    `understudy ${node} schema`,
    process.env,
  );
  const directory = await mkdtemp(join(tmpdir(), 'understudy-schema-'));
  try {
    const trusted: Record<string, string> = {};
    if (rootCertificates !== null) {
      trusted['PGSSLROOTCERT'] = join(directory, 'root.crt');
      await writeFile(trusted['PGSSLROOTCERT'], rootCertificates);
    }
    const section = (name: string): Promise<string> =>
      runDump(pgDump, dumpArguments(options.snapshot, name), { ...env, ...trusted });
    const [preData, postData] = await Promise.all([section('pre-data'), section('post-data')]);
    return {
      serverVersion,
      preData: schemaStatements(preData),
      postData: schemaStatements(postData),
    };
  } finally {
    await rm(directory, { recursive: true });
  }
}

function dumpArguments(snapshot: string, section: string): string[] {
  return [
    '--schema-only',
    `--section=${section}`,
    `--snapshot=${snapshot}`,
    `--lock-wait-timeout=${lockWaitMs}`,
    '--exclude-schema=understudy',
    '--exclude-schema=understudy_rows',
    '--encoding=UTF8',
    // Each server has its own disks.
    '--no-tablespaces',
    '--no-publications',
    '--no-subscriptions',
    '--no-password',
  ];
}

/** Refuses a pg_dump that cannot be run or that is older than the server. */
export async function requireFittingDump(pgDump: string, serverVersion: number): Promise<void> {
  const wanted = Math.floor(serverVersion / 10_000);
  const { code, output, errors } = await run(pgDump, ['--version'], process.env, versionMaxMs);
  const found = /\(PostgreSQL\) (\d+)/.exec(output.toString('utf8'))?.[1];
  if (code !== 0 || found === undefined) {
    throw unusableDump(
      `${pgDump} cannot be run: ${lastLine(errors) || 'it reports no version'}`,
      wanted,
    );
  }
  if (Number(found) < wanted) {
    throw unusableDump(`${pgDump} has version ${found}, the server has version ${wanted}`, wanted);
  }
}

async function runDump(
  pgDump: string,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
): Promise<string> {
  const { code, output, errors } = await run(pgDump, args, env, dumpMaxMs);
  if (code === 0) return output.toString('utf8');
  const reason = lastLine(errors) || `it exited with ${code ?? 'a signal'}`;
  throw dumpFailed(reason);
}

interface Ran {
  readonly code: number | null;
  readonly output: Buffer;
  readonly errors: string;
}

/** Never rejects: a program that cannot be started has no exit code. */
function run(
  file: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
  timeoutMs: number,
): Promise<Ran> {
  return new Promise((resolve) => {
    const child = spawn(file, args, { env, stdio: ['ignore', 'pipe', 'pipe'], timeout: timeoutMs });
    const output: Buffer[] = [];
    let bytes = 0;
    let errors = '';
    child.stdout.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > outputBytesMax) child.kill();
      else output.push(chunk);
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      errors = (errors + text).slice(-errorCharsMax);
    });
    child.once('error', ({ message }) => {
      resolve({ code: null, output: Buffer.alloc(0), errors: message });
    });
    child.once('close', (code) => resolve({ code, output: Buffer.concat(output), errors }));
  });
}

/** The last line names the reason. */
const errorCharsMax = 4_000;

function lastLine(text: string): string {
  const lines = text.split('\n').filter((line) => line.trim() !== '');
  // Lines after the reason explain it: the query, or a hint.
  const reason = lines.find((line) => line.includes('error:')) ?? lines[lines.length - 1] ?? '';
  return redactText(reason.replace(/^pg_dump: (?:error: )?/, ''));
}

/** Set by a dump for its session; the session that builds the schema has its own values. */
const sessionSettings = [
  'statement_timeout',
  'lock_timeout',
  'idle_in_transaction_session_timeout',
  'transaction_timeout',
  'client_encoding',
  'standard_conforming_strings',
  'check_function_bodies',
  'xmloption',
  'client_min_messages',
  'row_security',
];
const sessionSetting = new RegExp(
  `^(?:SET (?:${sessionSettings.join('|')}) = |SELECT pg_catalog\\.set_config\\('search_path', )`,
);

/** Understudy's own triggers, and all statements about them, by their names. */
const ownObjects: readonly RegExp[] = [
  /^CREATE TRIGGER understudy_guard(?:_truncate)? /,
  /^ALTER TABLE .* (?:DIS|EN)ABLE (?:ALWAYS |REPLICA )?TRIGGER understudy_guard(?:_truncate)?$/s,
  /^COMMENT ON TRIGGER understudy_guard(?:_truncate)? /,
  /^(?:CREATE|ALTER|COMMENT ON) EVENT TRIGGER understudy_(?:attached|(?:guard|watch)(?:_[a-z]+)?) /,
];

/** The statements of a dump that create the schema elsewhere, in their order. */
export function schemaStatements(script: string): string[] {
  const isLeftOut = (statement: string): boolean =>
    sessionSetting.test(statement) || ownObjects.some((own) => own.test(statement));
  return splitStatements(script).filter((statement) => !isLeftOut(statement));
}
