/**
 * Failpoints: how they are armed, at which pass they act, and that they do nothing when unarmed.
 */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { armFailpoints, failpointNames, hit, parseFailpoints } from '../../src/failpoints.ts';

test.after.each(() => armFailpoints(undefined));

/** The texts of all sources below a folder. */
function filesBelow(folder: string): readonly string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => readFileSync(join(folder, name), 'utf8'));
}

test('nothing happens when nothing is armed', () => {
  for (const name of failpointNames) assert.is(hit(name), undefined);
  armFailpoints('');
  assert.is(hit('ack.before'), undefined);
});

test('every failpoint is hit somewhere in src and armed by a test of the real path', () => {
  for (const name of failpointNames) {
    const places = filesBelow('src').filter((file) => file.includes(`hit('${name}')`));
    assert.is(places.length, 1, `${name} is hit by one statement`);
    const tests = ['test/integration', 'test/fault'].flatMap(filesBelow);
    assert.ok(
      tests.some((file) => file.includes(name)),
      `a test arms ${name}`,
    );
  }
});

test('names, actions and passes are parsed', () => {
  assert.equal(parseFailpoints('ack.before=kill, apply.before=error:3,own.after-init=pause:50:2'), [
    { name: 'ack.before', action: { kind: 'kill' }, atPass: 1 },
    { name: 'apply.before', action: { kind: 'error' }, atPass: 3 },
    { name: 'own.after-init', action: { kind: 'pause', ms: 50 }, atPass: 2 },
  ]);
});

test('what is no failpoint is an error at the start', () => {
  const wrong = ['nope=kill', 'ack.before', 'ack.before=die', 'ack.before=kill:0'];
  wrong.push('ack.before=pause', 'ack.before=kill,', 'ack.before=pause:x');
  for (const text of wrong) {
    assert.throws(
      () => armFailpoints(text),
      (error: unknown) => error instanceof UnderstudyError && error.code === 'CONFIG_INVALID',
      text,
    );
  }
});

test('an error comes once, at its pass, at its failpoint', async () => {
  armFailpoints('apply.before=error:2');
  assert.is(hit('apply.before'), undefined);
  assert.is(hit('ack.before'), undefined);
  try {
    await hit('apply.before');
    assert.unreachable('the second pass must fail');
  } catch (error) {
    assert.instance(error, UnderstudyError);
    assert.ok((error as UnderstudyError).retry);
    assert.match((error as UnderstudyError).message, 'apply.before');
  }
  assert.is(hit('apply.before'), undefined);
});

test('a pause waits', async () => {
  armFailpoints('apply.before=pause:40');
  const startedMs = performance.now();
  await hit('apply.before');
  assert.ok(performance.now() - startedMs >= 38);
});

test('one failpoint may act at several passes', async () => {
  armFailpoints('apply.before=pause:1,apply.before=error:2');
  assert.not(hit('apply.before') === undefined);
  await assertRejects(hit('apply.before'));
});

async function assertRejects(promise: Promise<void> | undefined): Promise<void> {
  let failed = false;
  try {
    await promise;
  } catch {
    failed = true;
  }
  assert.ok(failed);
}

test('kill ends the process by SIGKILL, and no later statement runs', () => {
  const script = `
    import { armFailpoints, hit } from './src/failpoints.ts';
    armFailpoints(process.env.UNDERSTUDY_FAILPOINTS);
    await hit('publish.before-commit');
    console.log('first');
    await hit('publish.before-commit');
    console.log('second');`;
  const argv = ['--import', 'tsx', '--input-type=module', '-e', script];
  const env = { ...process.env, UNDERSTUDY_FAILPOINTS: 'publish.before-commit=kill:2' };
  const { signal, stdout } = spawnSync(process.execPath, argv, { encoding: 'utf8', env });
  assert.is(signal, 'SIGKILL');
  assert.is(stdout, 'first\n');
});

test.run();
