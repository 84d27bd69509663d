/**
 * The log: what a line looks like for programs and for people, and that no secret gets into it.
 */
import { spawnSync } from 'node:child_process';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { createLogger, humanLine, type Logger, type LogLevel } from '../../src/logger.ts';
import { redactSecrets, redactText } from '../../src/redact.ts';

function reading(level: LogLevel = 'info', format: 'json' | 'human' = 'json') {
  const lines: string[] = [];
  const stream = { write: (line: string) => void lines.push(line) };
  const log: Logger = createLogger({ level, format, stream });
  const last = () => JSON.parse(lines.at(-1) ?? '{}') as Record<string, unknown>;
  return { log, lines, last };
}

test('a line is one JSON object with level, time, fields and message', () => {
  const { log, lines, last } = reading();
  log.child({ node: 'a' }).info({ rows: 3, lsn: 12n, nothing: null }, 'published');
  assert.is(lines.length, 1);
  const { time, ...rest } = last();
  assert.match(String(time), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  assert.equal(rest, {
    level: 'info',
    node: 'a',
    rows: 3,
    lsn: '0/C',
    nothing: null,
    message: 'published',
  });
});

test('LSNs are in the form in which every command takes them', () => {
  const { log, last } = reading();
  const at = { epoch: 3, lsn: 0x16b3748n };
  const slot = { confirmedFlushLsn: 255n, retainedBytes: 7n, nextOffsets: [12n] };
  log.info({ at, position: { at, commitTimeMicros: 5n }, slot }, 'x');
  const { at: shown, position, slot: kept } = last();
  assert.is(shown, '3:0/16B3748');
  assert.equal(position, { at: '3:0/16B3748', commitTimeMicros: '5' });
  assert.equal(kept, { confirmedFlushLsn: '0/FF', retainedBytes: '7', nextOffsets: ['12'] });
});

test('hosts of URLs are shown', () => {
  const { log, lines } = reading();
  log.info({ url: 'http://u:hunter2@registry.example:8081/apis' }, 'x');
  assert.match(lines[0] ?? '', 'http://u:***@registry.example:8081/apis');
});

test('levels below the configured one log nothing', () => {
  const { log, lines } = reading('warn');
  log.debug({}, 'x');
  log.info({}, 'x');
  log.warn({}, 'x');
  log.error({}, 'x');
  assert.is(lines.length, 2);
});

test('secrets are removed from messages, fields, children, errors and their causes', () => {
  const { log, lines } = reading('debug');
  const url = 'postgres://u:hunter2@h/d';
  const cause = new Error(`cannot reach ${url}`);
  const error = new UnderstudyError('POSTGRES_UNREACHABLE', `no ${url}`, `see ${url}`, cause);
  log.info({}, `at ${url}`);
  log.info({ url, target: url, deep: { list: [url], password: 'hunter2' } }, 'x');
  log.info({ auth: { user: 'u', pass: 'hunter2' }, sasl: 'hunter2', Password: 'hunter2' }, 'x');
  log.info({ conninfo: "host=h password='hunter2 hunter2' user=u" }, 'x');
  log.info({ query: 'postgres://h/d?user=u&password=hunter2&ssl=1' }, 'x');
  log.child({ url, password: 'hunter2' }).info({}, 'x');
  log.error({ error }, 'x');
  assert.is(lines.length, 7);
  for (const line of lines) assert.not.match(line, 'hunter2');
  assert.match(lines[1] ?? '', 'postgres://u:***@h/d');
});

test('an error is logged with code, message, hint and causes; the stack only for bugs', () => {
  const { log, last } = reading();
  const cause = new Error('read ECONNRESET', { cause: new Error('deeper') });
  const error = new UnderstudyError('KAFKA_UNREACHABLE', 'no broker', 'start one', cause);
  log.error({ error }, 'failed');
  assert.equal(last()['error'], {
    code: 'KAFKA_UNREACHABLE',
    message: 'no broker',
    hint: 'start one',
    causes: ['read ECONNRESET', 'deeper'],
  });
  log.error({ error: new UnderstudyError('BUG', 'x', 'y') }, 'failed');
  assert.match(String((last()['error'] as { stack?: string }).stack), 'logger.test.ts');
  const refused = Object.assign(new Error('x'), { code: 'ECONNREFUSED', message: '' });
  log.error({ error: refused }, 'failed');
  assert.equal(last()['error'], { code: 'ECONNREFUSED', message: 'ECONNREFUSED' });
  const debugging = reading('debug');
  debugging.log.error({ error }, 'failed');
  assert.type((debugging.last()['error'] as { stack?: string }).stack, 'string');
});

test('the facts of an error are fields of the line, which keeps its own', () => {
  const { log, last } = reading();
  const facts = { node: 'b', slot: 'understudy_shop_1', message: 'x', lost: null };
  const error = new UnderstudyError('SLOT_MISMATCH', 'no slot', 'create it', undefined, facts);
  log.error({ error }, 'failed');
  const { time: _, ...line } = last();
  assert.equal(line, {
    ...{ level: 'error', node: 'b', slot: 'understudy_shop_1', lost: null },
    error: { code: 'SLOT_MISMATCH', message: 'no slot', hint: 'create it' },
    message: 'failed',
  });
  log.child({ node: 'a' }).error({ error, slot: 'other' }, 'failed');
  assert.equal([last()['node'], last()['slot']], ['a', 'other']);
});

test('a chain of causes that repeats itself ends', () => {
  const { log, last } = reading();
  const error = new Error('x');
  error.cause = error;
  log.error({ error }, 'failed');
  assert.is((last()['error'] as { causes: string[] }).causes.length, 8);
});

test('people get one readable line', () => {
  const line = humanLine(
    '{"level":"warn","time":"2026-01-02T03:04:05.678Z","node":"a","message":"two\\nlines"}\n',
  );
  assert.is(line, '03:04:05.678 warn  two lines (node=a)\n');
  const { log, lines } = reading('info', 'human');
  log.error({ error: new UnderstudyError('DAMAGED', 'a hole', 'repair it') }, 'stopped');
  assert.match(lines[0] ?? '', /error stopped\n {4}DAMAGED: a hole\n {4}HINT: repair it\n$/);
});

test('redaction hides too much rather than too little', () => {
  assert.is(redactText('postgres://u:p@ss/w@h:5432/d x'), 'postgres://u:***@h:5432/d x');
  assert.is(redactText('http://registry:8081/x'), 'http://registry:8081/x');
  assert.is(redactText('PASSWORD = x; y'), 'PASSWORD = ***; y');
  assert.is(redactSecrets('abcdef abcd ab', ['abcd', 'abcdef', 'ab']), '*** *** ab');
});

test('lines go to stderr before the process ends, stdout stays empty', () => {
  const script = `
    import { createLogger } from './src/logger.ts';
    const log = createLogger({ level: 'info', format: 'json' });
    for (let i = 0; i < 500; i++) log.info({ i }, 'line');
    process.exit(3);`;
  const argv = ['--import', 'tsx', '--input-type=module', '-e', script];
  const { status, stdout, stderr } = spawnSync(process.execPath, argv, { encoding: 'utf8' });
  assert.is(status, 3);
  assert.is(stdout, '');
  assert.is(stderr.trim().split('\n').length, 500);
});

test.run();
