/**
 * Mutations that lose, duplicate or tear data and that only tests with servers detect. Data only.
 */
import type { Mutation } from './mutation.ts';
import { ownerShortcuts } from './owner-list.ts';
import { rebuildShortcuts } from './rebuild-list.ts';
import { resnapshotShortcuts } from './resnapshot-list.ts';
import { topicShortcuts } from './topic-list.ts';

export const withServers: readonly Mutation[] = [
  {
    name: 'producer-reused',
    harm: 'the broker takes new records for duplicates, acknowledges and drops them',
    edits: [
      {
        file: 'src/topic/kafka/transactional-producer.ts',
        rule: 'failed-producer-is-not-reused',
        replace: '',
      },
      {
        file: 'src/topic/kafka/transactional-producer.ts',
        rule: 'failure-ends-producer',
        replace: `#die(error: unknown): Error {
    return this.#explain(error);
  }`,
      },
    ],
    tests: ['test/integration/topic-lost-answers.test.ts'],
  },
  {
    name: 'write-repeated',
    harm: 'a write whose answer was lost is in the log twice',
    edits: [
      {
        file: 'src/topic/kafka/transactional-producer.ts',
        rule: 'write-is-not-repeated',
        replace: `await this.#produceRound(round).catch(async () => {
          await this.#connection.open();
          const plan = new ProducePlan(this.#produced, records);
          await this.#produceRound(this.#nextRound(identity, plan));
        });`,
      },
    ],
    tests: ['test/integration/topic-lost-answers.test.ts'],
  },
  {
    name: 'lost-answer-taken-for-yes',
    harm: 'a batch counts as committed whose commit never reached the broker',
    edits: [
      {
        file: 'src/topic/kafka/transactional-producer.ts',
        rule: 'lost-answer-is-no-commit',
        replace: `await this.#connection.request(this.#coordinator, request).catch(() => null);
      const answer = { errorCode: 0 };`,
      },
    ],
    tests: ['test/integration/topic-lost-answers.test.ts'],
  },
  {
    name: 'position-outside-transaction',
    harm: 'a crash between position and rows loses the rows',
    edits: [
      {
        file: 'src/follower/apply/applier.ts',
        rule: 'position-moves-with-rows',
        part: 'await movePosition(this.#client, from, to);',
        replace: '',
      },
      {
        file: 'src/follower/apply/applier.ts',
        rule: 'position-moves-with-rows',
        replace: 'await movePosition(this.#client, from, to); $&',
      },
    ],
    tests: ['test/integration/crash-points.test.ts'],
  },
  {
    name: 'position-moved-from-anywhere',
    harm: 'an applier with an outdated position applies a batch over newer rows',
    edits: [
      {
        file: 'src/follower/state/follower-state.ts',
        rule: 'position-moves-from-where-it-was',
        replace: 'if (rowCount !== null) return;',
      },
    ],
    tests: ['test/integration/follower-position.test.ts'],
  },
  {
    name: 'status-of-received',
    harm: 'Postgres discards WAL that was sent and is in no log, the default of the client library',
    edits: [
      {
        file: 'src/leader/stream/wal-session.ts',
        rule: 'receipt-moves-no-status',
        replace: "if (message.kind === 'commit') this.#received = message.commitEndLsn; $&",
      },
      {
        file: 'src/leader/stream/wal-session.ts',
        rule: 'status-of-confirmed-lsn',
        part: 'const flush = this.#confirmedLsn;',
        replace: `const received = this.#received > this.#confirmedLsn;
    const flush = received ? this.#received : this.#confirmedLsn;`,
      },
      {
        file: 'src/leader/stream/wal-session.ts',
        rule: 'status-of-confirmed-lsn',
        replace: '#received = 0n as Lsn; $&',
      },
    ],
    tests: ['test/integration/crash-points.test.ts'],
  },
  {
    name: 'batch-skipped',
    harm: 'a batch that a follower failed to apply is skipped',
    edits: [
      {
        file: 'src/follower/follower.ts',
        rule: 'failed-batch-is-not-skipped',
        replace: `const applied = this.#applier.apply(steps, move);
    const rows = await applied.catch(async () => {
      await movePosition(this.#parts.client, from, to);
      return 0;
    });`,
      },
    ],
    tests: ['test/fault/follower-postgres.test.ts'],
  },
  {
    name: 'deadlock-final',
    harm: 'a follower that loses a deadlock once stays down until an operator acts',
    edits: [
      {
        file: 'src/follower/apply/applier.ts',
        rule: 'deadlock-is-retried',
        part: '|40|',
        replace: '|',
      },
    ],
    tests: ['test/fault/follower-postgres.test.ts'],
  },
  {
    name: 'keys-by-equal-sign',
    harm: 'a key whose type is of an extension is not found, or another row is',
    edits: [
      {
        file: 'src/catalog/key-lookup.ts',
        rule: 'equality-of-key-operator',
        part: ' ${equal} ',
        replace: ' = ',
      },
    ],
    tests: ['test/integration/identities.test.ts'],
  },
  {
    name: 'backfill-left-out',
    harm: 'rows that existed at init are never read, without an error',
    edits: [
      {
        file: 'src/fleet/operations/init-steps.ts',
        rule: 'init-names-unfinished-tables',
        replace: 'return { unfinished: [], schema };',
      },
    ],
    tests: ['test/integration/backfill.test.ts'],
  },
  {
    name: 'unread-rows-are-damage',
    harm: 'a change of a row that was not yet read stops a follower',
    edits: [
      { file: 'src/follower/apply/row-actions.ts', rule: 'unread-base-is-no-damage', replace: '' },
    ],
    tests: ['test/integration/backfill.test.ts'],
  },
  {
    name: 'later-table-unread',
    harm: 'rows of a table that is published later are never read',
    edits: [
      {
        file: 'src/leader/tables/known-tables.ts',
        rule: 'later-table-is-backfilled',
        part: "added.kind === 'ordinary'",
        replace: 'false',
      },
    ],
    tests: ['test/integration/later-tables.test.ts'],
  },
  {
    name: 'passed-over-for-ever',
    harm: 'changes of a table that is added later are skipped silently',
    edits: [
      {
        file: 'src/leader/tables/known-tables.ts',
        rule: 'skipped-only-before-entry',
        part: ' && commitLsn < enteredLsn',
        replace: '',
      },
    ],
    tests: ['test/integration/later-tables.test.ts'],
  },
  {
    name: 'session-style-of-the-database',
    harm: 'an interval changes where the follower’s database has another IntervalStyle',
    edits: [
      { file: 'src/catalog/postgres-session.ts', rule: 'session-sets-interval-style', replace: '' },
    ],
    tests: ['test/integration/type-matrix.test.ts'],
  },
  {
    name: 'registry-id-believed',
    harm: 'rows are written under the id of another table’s schema, and read as its rows',
    edits: [{ file: 'src/topic/schema-registry.ts', rule: 'registry-id-is-compared', replace: '' }],
    tests: ['test/fault/registry.test.ts'],
  },
  {
    name: 'start-from-slot',
    harm: 'transactions that Kafka committed before the confirmation are published twice',
    edits: [
      {
        file: 'src/leader/stream/stream-run.ts',
        rule: 'start-at-checkpoint',
        part: 'checkpoint.at.lsn',
        replace: '(await readSlot())?.confirmedFlushLsn ?? checkpoint.at.lsn',
      },
    ],
    tests: ['test/integration/crash-points.test.ts'],
  },
  {
    name: 'deletes-after-upserts',
    harm: 'a key whose text changes loses its row',
    edits: [
      {
        file: 'src/follower/apply/row-actions.ts',
        rule: 'deletes-before-writes',
        replace: 'for (const step of steps) yield* writesOf(step, early, layer);',
      },
      {
        file: 'src/follower/apply/row-actions.ts',
        rule: 'writes-after-deletes',
        replace: 'for (const step of steps) yield* deletesOf(step, replace);',
      },
    ],
    tests: ['test/integration/path-rows.test.ts'],
  },
  {
    name: 'end-without-fence',
    harm: 'a new epoch begins below a batch that was confirmed to the slot',
    edits: [
      { file: 'src/topic/log-end.ts', rule: 'fence-is-written', replace: '' },
      {
        file: 'src/topic/log-end.ts',
        rule: 'fence-is-committed',
        part: '(await producer.commit())',
        replace: 'records.map(({ partition }): bigint | null => BigInt(-1 - partition))',
      },
    ],
    tests: ['test/fault/lost-markers.test.ts'],
  },
  {
    name: 'offset-reset',
    harm: 'a reader whose records expired continues at the oldest remaining one',
    edits: [
      {
        file: 'src/topic/kafka/committed-reader.ts',
        rule: 'expired-offset-is-an-error',
        part: '(error: unknown) => this.#explainFetch(error, from)',
        replace: `async (error: { errorName?: string }) => {
      if (error.errorName !== 'OFFSET_OUT_OF_RANGE') return this.#explainFetch(error, from);
      const ends = await this.watermarks();
      return new Map(
        ends.map((end) => [end.partition, { ...end, records: [], nextOffset: end.lowWatermark }]),
      );
    }`,
      },
    ],
    tests: ['test/integration/topic-reader.test.ts'],
  },
  {
    name: 'detached-unmarked',
    harm: 'a node whose detach was interrupted follows on past its point',
    edits: [
      { file: 'src/fleet/operations/detach-steps.ts', rule: 'detached-is-recorded', replace: '' },
    ],
    tests: ['test/integration/detach-kills.test.ts'],
  },
  {
    name: 'guard-lifted-first',
    harm: 'a database takes writes while its agent may still apply to it',
    edits: [
      {
        file: 'src/fleet/operations/detach-steps.ts',
        rule: 'guard-until-detach-is-recorded',
        replace: '$& await removeGuard(node.client);',
      },
    ],
    tests: ['test/integration/detach-kills.test.ts'],
  },
  {
    name: 'hurried-without-a-place',
    harm: 'a detach at an LSN that is not in the log makes a delayed node apply everything',
    edits: [
      { file: 'src/fleet/operations/detach.ts', rule: 'detach-at-an-lsn-of-the-log', replace: '' },
    ],
    tests: ['test/integration/detach.test.ts'],
  },
  {
    name: 'promotion-waits-for-age',
    harm: 'a delayed node cannot be promoted before its delay is over',
    edits: [{ file: 'src/follower/follower.ts', rule: 'promotion-drops-delay', replace: '' }],
    tests: ['test/integration/delay.test.ts'],
  },
  ...rebuildShortcuts,
  ...resnapshotShortcuts,
  ...topicShortcuts,
  {
    name: 'wrong-answer-believed',
    harm: 'one answer that was changed on its way stops a node',
    edits: [
      {
        file: 'src/topic/kafka/committed-reader.ts',
        rule: 'wrong-answer-fetched-twice',
        replace: 'if (error !== undefined) throw error;',
      },
    ],
    tests: ['test/integration/topic-reader.test.ts'],
  },
  {
    name: 'damaged-leader-goes-on',
    harm: 'a leader that is started again confirms changes that the topic lost',
    edits: [{ file: 'src/agent/agent.ts', rule: 'damaged-leader-stays-stopped', replace: '' }],
    tests: ['test/fault/torn-transactions.test.ts'],
  },
  {
    name: 'missing-row-forgotten',
    harm: 'a follower that lacked a row is promoted, and may lack others',
    edits: [{ file: 'src/agent/evidence.ts', rule: 'missing-row-is-noted', replace: '' }],
    tests: ['test/integration/verify-repair.test.ts'],
  },
  ...ownerShortcuts,
];
