/**
 * The result of a preflight, without servers: findings about brokers and topics flow in;
 * their order, the exit code of the most urgent one, and the lines for people flow out.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { findingLines } from '../../src/commands/findings-text.ts';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import {
  judgeChangesTopic,
  judgeControlTopic,
  judgeReplication,
  judgeTransactionTimeout,
} from '../../src/fleet/preflight/check-kafka.ts';
import {
  enumerate,
  errorFinding,
  exitOfFindings,
  type Finding,
  findingOf,
  inOrderOfUrgency,
  refuseErrors,
  warningFinding,
} from '../../src/fleet/preflight/finding.ts';
import { changesTopicSettings, controlTopicSettings } from '../../src/topic/records/layout.ts';

function only(findings: readonly Finding[]): Finding {
  assert.is(findings.length, 1, JSON.stringify(findings));
  return findings[0] as Finding;
}

test('brokers: too few for the replication, too short transactions', () => {
  assert.equal(judgeReplication(null, 1), []);
  assert.equal(judgeReplication(3, 3), []);
  assert.match(only(judgeReplication(3, 1)).hint, /kafka.replication to 1 or less/);
  assert.equal(judgeTransactionTimeout('900000'), []);
  assert.match(only(judgeTransactionTimeout('60000')).hint, /900000/);
});

const undelayed = { nodeNames: ['a', 'b'], delayMs: () => 0 };

test('a topic as init creates it gives no finding; each thing changed is one', () => {
  const settings = changesTopicSettings(1, {});
  const asked = { ...undelayed, partitions: 2, topicOverrides: {} };
  const found = { partitions: 2, replication: 1, settings };
  const judge = (change: Record<string, string>, partitions = 2): Finding[] =>
    judgeChangesTopic(
      'shop.changes',
      { ...found, partitions, settings: { ...settings, ...change } },
      asked,
      1,
    );
  assert.equal(judge({}), []);
  assert.is(only(judge({}, 3)).code, 'TOPIC_MISMATCH');
  assert.is(only(judge({ 'cleanup.policy': 'delete' })).severity, 'error');
  assert.is(only(judge({ 'message.timestamp.type': 'CreateTime' })).severity, 'error');
  assert.is(only(judge({ 'min.compaction.lag.ms': '0' })).severity, 'warning');
  assert.match(
    only(judge({ 'min.compaction.lag.ms': '0' })).hint,
    /--add-config min.compaction.lag.ms=86400000`$/,
  );
  const control = { partitions: 2, replication: 1, settings: controlTopicSettings(1) };
  assert.match(only(judgeControlTopic('shop.control', control, 1)).message, /2 partitions, 1/);
});

test('a topic that no write can satisfy is an error', () => {
  const settings = { ...changesTopicSettings(3, {}) };
  const found = { partitions: 1, replication: 1, settings };
  const asked = { ...undelayed, partitions: 1, topicOverrides: {} };
  const findings = judgeChangesTopic('t', found, asked, 3);
  assert.match(only(findings).message, /needs 2 in-sync replicas and has 1/);
});

test('a delay for which the topic does not keep every change is an error', () => {
  const overrides = { 'min.compaction.lag.ms': '900000' };
  const found = { partitions: 1, replication: 1, settings: changesTopicSettings(1, overrides) };
  const judge = (delayMs: number): Finding[] => {
    const delayed = {
      nodeNames: ['a', 'b'],
      delayMs: (node: string) => (node === 'b' ? delayMs : 0),
    };
    const asked = { ...delayed, partitions: 1, topicOverrides: overrides };
    return judgeChangesTopic('t', found, asked, 1);
  };
  assert.equal(judge(899_999), []);
  const finding = only(judge(900_000));
  assert.is(finding.severity, 'error');
  assert.is(finding.object, 'node b');
  assert.match(finding.message, /node b is delayed by 15m, and t keeps every change for 15m/);
});

test('the exit code is that of the most urgent error', () => {
  const warning = warningFinding('NO_TABLES', 'node a', 'w', 'h');
  const wrong = errorFinding('PREREQUISITE', 'node a', 'wrong', 'h');
  const away = errorFinding('KAFKA_UNREACHABLE', 'kafka', 'away', 'h');
  assert.is(exitOfFindings([]), 0);
  assert.is(exitOfFindings([warning]), 0);
  assert.is(exitOfFindings([warning, wrong]), 4);
  assert.is(exitOfFindings([wrong, away, warning]), 2);
  assert.equal(inOrderOfUrgency([warning, wrong, away]), [away, wrong, warning]);
  assert.not.throws(() => refuseErrors([warning]));
  assert.throws(
    () => refuseErrors([warning, wrong, away]),
    (error: unknown) => error instanceof UnderstudyError && error.code === 'KAFKA_UNREACHABLE',
  );
});

test('a failure becomes a finding that names its node; a mistake in the file does not', () => {
  const away = new UnderstudyError('POSTGRES_UNREACHABLE', 'cannot connect to x', 'h');
  assert.is(findingOf(away, 'node b').message, 'node b: cannot connect to x');
  const wrong = new UnderstudyError('CONFIG_INVALID', 'not a URL', 'h');
  assert.throws(
    () => findingOf(wrong, 'node b'),
    (error: unknown) => error === wrong,
  );
});

test('people get two lines for a finding and a count at the end', () => {
  const wrong = errorFinding('PREREQUISITE', 'node a', 'it is wrong', 'Mend it.');
  assert.equal(findingLines([wrong]), [
    'error: it is wrong',
    'HINT: Mend it.',
    'not ready: 1 error, no warnings',
  ]);
  assert.equal(findingLines([]), ['ready: no errors, no warnings']);
  assert.is(enumerate(['a', 'b', 'c', 'd', 'e']), 'a, b, c and 2 more');
});

test.run();
