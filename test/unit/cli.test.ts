/**
 * The command line as a person or a script meets it: spawned, with its exit code, stdout and
 * stderr. What verbs do against servers is tested where the servers are.
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { failureOf, jsonLine, tableLines } from '../../src/commands/answer.ts';
import { readCommandLine } from '../../src/commands/command-line.ts';
import { parsePointReference } from '../../src/commands/point-reference.ts';
import { laterVerbs, verbs } from '../../src/commands/registry.ts';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { Stopped } from '../../src/lifecycle.ts';
import { redactText } from '../../src/redact.ts';

const checkout = fileURLToPath(new URL('../..', import.meta.url));
const directory = mkdtempSync(join(tmpdir(), 'understudy-cli-'));
test.after(() => rmSync(directory, { recursive: true }));

interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** In an empty folder, so that no configuration is there by chance. */
function understudy(words: readonly string[], environment: Record<string, string> = {}): Ended {
  const argv = ['--import', import.meta.resolve('tsx'), join(checkout, 'src/cli.ts'), ...words];
  const { UNDERSTUDY_CONFIG: _, UNDERSTUDY_LOG_LEVEL: __, ...inherited } = process.env;
  return spawnSync(process.execPath, argv, {
    encoding: 'utf8',
    cwd: directory,
    env: { ...inherited, ...environment },
  });
}

async function refusal(words: readonly string[]): Promise<UnderstudyError> {
  try {
    await readCommandLine(words, '1.2.3');
  } catch (error) {
    if (error instanceof UnderstudyError) return error;
    throw error;
  }
  throw new Error(`was not refused: ${words.join(' ')}`);
}

test('--help is on stdout, with every verb, examples and exit codes', () => {
  const { status, stdout, stderr } = understudy(['--help']);
  assert.is(status, 0);
  assert.is(stderr, '');
  for (const verb of Object.keys(verbs)) assert.match(stdout, new RegExp(`^ {2}${verb}\\b`, 'm'));
  for (const verb of laterVerbs) assert.not.match(stdout, new RegExp(`^ {2}${verb}\\b`, 'm'));
  assert.match(stdout, 'Examples:');
  for (const exit of [0, 1, 2, 3, 4, 5, 6, 7, 8, 70]) {
    assert.match(stdout, new RegExp(`^ {2}${exit} +\\S`, 'm'));
  }
});

test('--version is the version of the package', () => {
  const { status, stdout } = understudy(['--version']);
  assert.is(status, 0);
  assert.match(stdout, /^\d+\.\d+\.\d+/);
});

test('a usage error is two lines on stderr, or one JSON object on stdout', () => {
  const people = understudy(['stauts']);
  assert.is(people.status, 1);
  assert.is(people.stdout, '');
  assert.is(
    people.stderr,
    "error: unknown command 'stauts'\nHINT: Did you mean status? See `understudy --help`.\n",
  );
  const json = understudy(['stauts', '--json']);
  assert.is(json.status, 1);
  assert.is(json.stderr, '');
  assert.equal(JSON.parse(json.stdout), {
    error: {
      code: 'USAGE',
      message: "unknown command 'stauts'",
      hint: 'Did you mean status? See `understudy --help`.',
      exit: 1,
    },
  });
});

test('a missing or wrong configuration is the answer of every verb', () => {
  const missing = understudy(['status']);
  assert.is(missing.status, 1);
  assert.match(missing.stderr, /^error: cannot read understudy.yaml \(ENOENT\)\nHINT: .+\n$/);
  const file = join(directory, 'wrong.yaml');
  writeFileSync(file, 'cluster: shop\nnods: {}\n');
  const wrong = understudy(['--json', 'points'], { UNDERSTUDY_CONFIG: file });
  assert.is(wrong.status, 1);
  const { error } = JSON.parse(wrong.stdout) as { error: UnderstudyError };
  assert.is(error.code, 'CONFIG_INVALID');
  assert.is(understudy(['points', '--config', file]).stdout, '');
});

test('the environment is checked before anything is done', () => {
  const failpoint = understudy(['status'], { UNDERSTUDY_FAILPOINTS: 'nope=kill' });
  assert.is(failpoint.status, 1);
  assert.match(failpoint.stderr, 'nope is not a failpoint');
  const level = understudy(['status'], { UNDERSTUDY_LOG_LEVEL: 'loud' });
  assert.is(level.status, 1);
  assert.match(level.stderr, 'UNDERSTUDY_LOG_LEVEL');
});

test('what is typed wrongly is refused with a hint', async () => {
  const cases: readonly (readonly [string, string, string])[] = [
    ['', 'no command', '--help'],
    ['wait b', '--at', 'understudy wait --help'],
    ['wait b --at 3:0/XY', 'neither a point label nor an LSN', 'before-migration'],
    ['wait b --at x --timeout 3', 'not a duration', '--timeout 30s'],
    ['wait b --at x --timeot 3s', "unknown option '--timeot'", 'Did you mean --timeout?'],
    ['failover b --allow-data-loss', 'needs a reason', '--reason'],
    ['failover', "missing required argument 'node'", 'understudy failover --help'],
    ['run', "missing required argument 'node'", 'understudy run --help'],
    ['run a b a', 'node a is named twice', 'once'],
    ['run a --http nowhere', 'not an address', 'host:port'],
    ['check extra', 'too many arguments', 'understudy check --help'],
    ['--config', "'--config <file>' argument missing", 'understudy --help'],
    ['status --log-level loud', 'loud', 'understudy status --help'],
  ];
  for (const [words, message, hint] of cases) {
    const error = await refusal(words.split(' ').filter((word) => word !== ''));
    assert.is(error.code, 'USAGE', words);
    assert.match(error.message, message);
    assert.match(error.hint, hint);
    assert.not.match(error.message + error.hint, '\n');
  }
  assert.is((await refusal(['point', 'Upper'])).code, 'LABEL_INVALID');
  const reason = ['failover', 'b', '--allow-data-loss', '--reason', ' '];
  assert.match((await refusal(reason)).message, '--reason must be one line');
});

test('what later versions bring is known and refused', async () => {
  const later = laterVerbs.map((verb) => [verb, 'x', '--drain-timeout', '3s']);
  later.push(['failover', 'b', '--force-fence']);
  for (const words of later) {
    assert.is((await refusal(words)).code, 'NOT_IN_THIS_VERSION', words.join(' '));
  }
});

test('the options of every verb may come before and after it', async () => {
  for (const words of [
    ['--json', '--config', 'init', 'wait', 'b', '--at', '3:0/16B3748'],
    ['wait', 'b', '--json', '--at', '3:0/16B3748', '--config', 'init'],
  ]) {
    const invocation = await readCommandLine(words, '1.2.3');
    assert.is(invocation.kind, 'verb');
    if (invocation.kind !== 'verb') continue;
    assert.is(invocation.name, 'wait');
    assert.equal([invocation.options.json, invocation.options.config], [true, 'init']);
  }
});

test('every verb can be loaded, has its own name, and explains itself', async () => {
  for (const [name, entry] of Object.entries(verbs)) {
    const command = await entry.load();
    assert.is(command.name, name);
    const help = await readCommandLine([name, '--help'], '1.2.3');
    assert.is(help.kind, 'text');
    if (help.kind === 'text') assert.match(help.text, `understudy ${name}`);
    for (const example of command.examples) {
      const words = example.match(/"[^"]*"|\S+/g)?.map((word) => word.replaceAll('"', '')) ?? [];
      assert.is(words.shift(), 'understudy');
      assert.is((await readCommandLine(words, '1.2.3')).kind, 'verb', example);
    }
  }
});

test('each verb turns its words into its input', async () => {
  const { waitCommand } = await import('../../src/commands/wait.ts');
  assert.equal(waitCommand.read(['b'], { at: 'x.1', timeout: '1.5s' }), {
    node: 'b',
    at: { kind: 'label', label: 'x.1' },
    timeoutMs: 1500,
  });
  const { failoverCommand } = await import('../../src/commands/failover.ts');
  assert.equal(failoverCommand.read(['b'], { allowDataLoss: true, reason: ' fire ' }), {
    node: 'b',
    dryRun: false,
    allowDataLoss: true,
    reason: 'fire',
  });
  const { runCommand } = await import('../../src/commands/run.ts');
  assert.equal(runCommand.read(['a', 'b'], { http: '8080' }), {
    nodes: ['a', 'b'],
    http: { host: '127.0.0.1', port: 8080 },
    until: null,
    replace: false,
  });
  const until = { kind: 'label', label: 'x' };
  assert.equal(runCommand.read(['b'], { until: 'x', replace: true }), {
    nodes: ['b'],
    http: null,
    until,
    replace: true,
  });
  assert.throws(() => runCommand.read(['a', 'b'], { until: 'x' }), /--until is for one node/);
  assert.throws(() => runCommand.read(['a', 'b'], { replace: true }), /--replace is for one node/);
  const { detachCommand } = await import('../../src/commands/detach.ts');
  assert.equal(detachCommand.read(['b'], { at: '0/A', timeout: '2m' }), {
    node: 'b',
    at: { kind: 'lsn', epoch: null, lsn: 10n },
    timeoutMs: 120_000,
  });
  assert.is(detachCommand.read(['b'], { timeout: '30s' }).at, null);
  const { repairDamageCommand } = await import('../../src/commands/repair-damage.ts');
  assert.equal(repairDamageCommand.read([], {}), { reason: null, resnapshot: true });
  const named = { reason: ' INC-7 ', resnapshot: false };
  assert.equal(repairDamageCommand.read([], named), { reason: 'INC-7', resnapshot: false });
  const { initCommand } = await import('../../src/commands/init.ts');
  assert.equal(initCommand.read([], {}), { leader: null, replaceRows: false });
});

test('P is a label, an LSN with its epoch, or a bare LSN', () => {
  assert.equal(parsePointReference('a1'), { kind: 'label', label: 'a1' });
  assert.equal(parsePointReference('3:0/A'), { kind: 'lsn', epoch: 3, lsn: 10n });
  assert.equal(parsePointReference('1/0'), { kind: 'lsn', epoch: null, lsn: 1n << 32n });
  for (const text of ['', 'A', '1a', '0:0/1', '3:', '0/', 'g/h', 'x'.repeat(64)]) {
    assert.throws(() => parsePointReference(text), /neither a point label/, text);
  }
});

test('whatever was thrown becomes one failure without secrets', () => {
  const stop = new AbortController();
  const of = (error: unknown) => failureOf(error, stop.signal, redactText);
  const known = new UnderstudyError('DIFFERENT', 'b differs\nin one row', 'repair');
  assert.equal(of(known), {
    code: 'DIFFERENT',
    message: 'b differs in one row',
    hint: 'repair',
    exit: 8,
  });
  const unknown = of(new TypeError('no postgres://u:hunter2@h/d'));
  assert.equal([unknown.code, unknown.exit], ['BUG', 70]);
  assert.not.match(unknown.message, 'hunter2');
  assert.is(of('text').code, 'BUG');
  assert.is(of(undefined).code, 'BUG');
  stop.abort(new Stopped('SIGINT'));
  const stopped = of(stop.signal.reason);
  assert.equal([stopped.code, stopped.exit], ['STOPPED', 130]);
});

test('answers are one line of JSON, tables are aligned', () => {
  assert.is(
    jsonLine({ rows: 5n, huge: 2n ** 60n, none: null }),
    '{"rows":5,"huge":"1152921504606846976","none":null}\n',
  );
  assert.equal(
    tableLines(
      ['node', 'rows', 'lsn'],
      [
        ['a', 5, '1:0/A'],
        ['berlin', 12n, null],
      ],
    ),
    ['node    rows  lsn', 'a          5  1:0/A', 'berlin    12  -'],
  );
});

/** Runs a module of its own in the checkout's name, for what the command line does at its end. */
function script(text: string): Ended {
  const argv = ['--import', 'tsx', '--input-type=module', '-e', text];
  return spawnSync(process.execPath, argv, { encoding: 'utf8', cwd: checkout });
}

test('a process with an open resource names it, and exits with its exit code', () => {
  const leak = `
    import { createServer } from 'node:net';
    import { endWhenIdle, openResources } from './src/process-end.ts';
    const before = openResources();
    const open = OPEN;
    endWhenIdle(5, before);`;
  const leaking = script(leak.replace('OPEN', 'createServer().listen(0)'));
  assert.is(leaking.status, 5);
  assert.match(leaking.stderr, 'TCPServerWrap 1');
  const clean = script(leak.replace('OPEN', 'null'));
  assert.is(clean.status, 5);
  assert.is(clean.stderr, '');
});

test('scripts/promote is understudy failover of this checkout', () => {
  const promote = join(checkout, 'scripts/promote');
  const help = spawnSync(promote, ['--help'], { encoding: 'utf8' });
  assert.is(help.status, 0);
  assert.match(help.stdout, 'usage: scripts/promote <node>');
  const bare = spawnSync(promote, [], { encoding: 'utf8' });
  assert.is(bare.status, 1);
  assert.match(bare.stderr, 'usage:');
  const copy = join(directory, 'checkout');
  mkdirSync(join(copy, 'scripts'), { recursive: true });
  cpSync(promote, join(copy, 'scripts/promote'));
  const words = ['b', '--allow-data-loss', '--reason', 'two words'];
  const bin = join(directory, 'bin');
  mkdirSync(bin);
  writeFileSync(join(bin, 'npx'), '#!/bin/sh\nprintf "npx|"; printf "%s|" "$@"; exit 6\n');
  chmodSync(join(bin, 'npx'), 0o755);
  const env = { ...process.env, PATH: `${bin}${delimiter}${process.env['PATH']}` };
  const published = spawnSync(join(copy, 'scripts/promote'), words, { encoding: 'utf8', env });
  assert.is(published.status, 6);
  assert.is(published.stdout, 'npx|pg-understudy|failover|b|--allow-data-loss|--reason|two words|');
  mkdirSync(join(copy, 'dist'));
  const answer = 'console.log(JSON.stringify(process.argv.slice(2))); process.exitCode = 7;';
  writeFileSync(join(copy, 'dist/cli.js'), answer);
  const built = spawnSync(join(copy, 'scripts/promote'), words, { encoding: 'utf8', env });
  assert.is(built.status, 7);
  assert.equal(JSON.parse(built.stdout), ['failover', ...words]);
});

test.run();
