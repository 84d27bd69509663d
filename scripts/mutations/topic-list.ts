/**
 * Mutations that take another topic of the same name for the log. Data only.
 */
import type { Mutation } from './mutation.ts';

export const topicShortcuts: readonly Mutation[] = [
  {
    name: 'log-goes-backwards',
    harm: 'a leader continues in a re-created topic that has no earlier records',
    edits: [
      {
        file: 'src/topic/kafka/transactional-producer.ts',
        rule: 'offsets-only-grow',
        replace: 'return;',
      },
    ],
    tests: ['test/integration/topic-transactions.test.ts'],
  },
  {
    name: 'end-of-a-log-is-enough',
    harm: 'a leader accepts a topic that lost the begin of its epoch',
    edits: [
      {
        file: 'src/topic/log-end.ts',
        rule: 'own-begin-is-where-it-was-written',
        replace: 'if (offset >= 0n || lowWatermark < 0n) continue;',
      },
    ],
    tests: ['test/integration/topic-recreated.test.ts'],
  },
  {
    name: 'waits-behind-the-end',
    harm: 'a follower waits for ever in a re-created topic, and reports itself as exact',
    edits: [
      {
        file: 'src/topic/kafka/committed-reader.ts',
        rule: 'log-reaches-what-was-read',
        replace: '',
      },
    ],
    tests: ['test/integration/topic-recreated.test.ts'],
  },
  {
    name: 'claims-before-it-looks',
    harm: 'a node supersedes a healthy leader in a topic in which no node can lead',
    edits: [
      {
        file: 'src/fleet/promotion/follower-promotion.ts',
        rule: 'log-reaches-own-position',
        replace: '',
      },
    ],
    tests: ['test/integration/topic-recreated.test.ts'],
  },
];
