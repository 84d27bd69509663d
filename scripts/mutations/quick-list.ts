/**
 * Mutations that lose, duplicate or tear data and that tests without servers detect. Data only.
 */
import type { Mutation } from './mutation.ts';
import { nodeShortcuts } from './node-list.ts';

const publishLoop = 'src/leader/stream/publish-loop.ts';
const batcher = 'src/leader/stream/batcher.ts';
const aligner = 'src/follower/apply/aligner.ts';
const publishModel = 'test/model/publish.test.ts';
const alignModel = 'test/model/align.test.ts';
const claimModel = 'test/model/claim.test.ts';

export const quick: readonly Mutation[] = [
  {
    name: 'acknowledge-on-receive',
    harm: 'Postgres discards WAL that no broker has: a crash loses it',
    edits: [
      {
        file: publishLoop,
        rule: 'receipt-is-not-confirmed',
        replace: `$&
    if (message.kind === 'commit') this.#parts.wal.confirm(message.commitEndLsn);`,
      },
    ],
    tests: [publishModel],
  },
  {
    name: 'acknowledge-before-commit',
    harm: 'Postgres discards WAL of a Kafka transaction that is then aborted',
    edits: [
      {
        file: publishLoop,
        rule: 'commit-before-confirm',
        replace: 'this.#parts.wal.confirm(point.upto); $&',
      },
    ],
    tests: [publishModel],
  },
  {
    name: 'acknowledge-unread',
    harm: 'Postgres discards WAL of a batch that can still be aborted after a coordinator died',
    edits: [
      {
        file: publishLoop,
        rule: 'read-back-before-confirm',
        replace: 'wal.confirm(point.upto); $&',
      },
    ],
    tests: [publishModel],
  },
  {
    name: 'acknowledge-plus-one',
    harm: 'a transaction whose commit record starts at the end of the one before is never sent',
    edits: [
      {
        file: publishLoop,
        rule: 'confirm-exact-end-lsn',
        part: 'point.upto',
        replace: '(point.upto + 1n) as never',
      },
    ],
    tests: [publishModel],
  },
  {
    name: 'status-plus-one',
    harm: 'the same, at the one place where bytes go to Postgres',
    edits: [
      {
        file: 'src/leader/stream/standby-status.ts',
        rule: 'status-of-exact-flush',
        part: 'status.flush',
        replace: 'status.flush + 1n',
      },
    ],
    tests: ['test/unit/standby-status.test.ts'],
  },
  {
    name: 'confirm-before-label',
    harm: 'a named point is in the log, and the control log has no record of it',
    edits: [
      {
        file: publishLoop,
        rule: 'label-before-confirm',
        part: 'await recordLabel(point.label, point, checkpoint);',
        replace: 'recordLabel(point.label, point, checkpoint).catch(() => undefined);',
      },
    ],
    tests: [publishModel],
  },
  {
    name: 'label-inside-batch',
    harm: 'a named point does not follow its transaction directly',
    edits: [{ file: batcher, rule: 'label-ends-batch', replace: '' }],
    tests: [publishModel, 'test/unit/batcher.test.ts'],
  },
  {
    name: 'keepalive-inside-transaction',
    harm: 'a point covers transactions that are not in its batch',
    edits: [
      {
        file: batcher,
        rule: 'keepalive-outside-transaction',
        part: '!this.#openTransaction && ',
        replace: '',
      },
    ],
    tests: [publishModel, 'test/unit/batcher.test.ts'],
  },
  {
    name: 'batch-ends-inside-transaction',
    harm: 'followers show a part of a transaction',
    edits: [
      {
        file: batcher,
        rule: 'batch-of-whole-transactions',
        part: '!this.#openTransaction && ',
        replace: '',
      },
    ],
    tests: [publishModel],
  },
  {
    name: 'counts-not-reset',
    harm: 'complete batches are reported as damaged',
    edits: [
      {
        file: batcher,
        rule: 'counts-start-at-zero',
        replace: 'this.#counts = [...this.#counts].slice(0, partitions);',
      },
    ],
    tests: [publishModel, 'test/unit/batcher.test.ts'],
  },
  {
    name: 'torn-end-overlooked',
    harm: 'the epoch continues after a torn batch, and no follower can continue',
    edits: [
      {
        file: 'src/fleet/promotion/own-epoch.ts',
        rule: 'torn-end-ends-epoch',
        part: "end.pastCheckpoint.length > 0 ? 'over' : 'begun'",
        replace: "'begun'",
      },
    ],
    tests: ['test/unit/own-epoch.test.ts', publishModel, claimModel],
  },
  {
    name: 'slot-ahead-accepted',
    harm: 'streaming begins after transactions that are missing in the log',
    edits: [{ file: 'src/leader/stream/slot.ts', rule: 'slot-not-ahead-of-log', replace: '' }],
    tests: ['test/unit/check-slot.test.ts'],
  },
  {
    name: 'verify-skipped',
    harm: 'a deposed leader writes into the epoch of its successor after a pause',
    edits: [
      {
        file: 'src/control/owning.ts',
        rule: 'verify-after-init',
        part: 'verify(',
        replace: 'drain(',
      },
    ],
    tests: [claimModel, 'test/unit/claim-owning.test.ts'],
  },
  {
    name: 'late-claim-unnoticed',
    harm: 'a claim that was given up deposes the leader, and no node begins its epoch',
    edits: [
      {
        file: 'src/control/owning.ts',
        rule: 'late-claim-is-begun',
        part: 'isLate && isMine(control, node, epoch) ?',
        replace: 'isLate && owning.ticket < 0 ?',
      },
    ],
    tests: [claimModel, 'test/unit/own-epoch.test.ts'],
  },
  {
    name: 'busy-tables-first',
    harm: 'a deposed leader takes writes for as long as one of its tables is busy',
    edits: [
      {
        file: 'src/follower/guard/table-visits.ts',
        rule: 'busy-tables-come-last',
        replace: 'this.#open = [...busy, ...this.#open];',
      },
    ],
    tests: ['test/unit/table-visits.test.ts'],
  },
  {
    name: 'predecessor-unchecked',
    harm: 'a claim of an older log with the same name deposes the leader',
    edits: [
      {
        file: 'src/control/claim.ts',
        rule: 'claim-names-predecessor',
        part: 'claim.predecessor === predecessor',
        replace: 'predecessor !== undefined',
      },
    ],
    tests: ['test/unit/claim.test.ts'],
  },
  {
    name: 'counts-unchecked',
    harm: 'a record that the topic lost is not detected',
    edits: [
      {
        file: aligner,
        rule: 'counts-compared',
        part: 'count === counted',
        replace: 'counted !== -1',
      },
    ],
    tests: [alignModel, 'test/unit/aligner.test.ts'],
  },
  {
    name: 'read-back-unchecked',
    harm: 'damage is not detected while no follower runs',
    edits: [
      { file: 'src/leader/stream/read-back.ts', rule: 'read-back-compares-counts', replace: '' },
    ],
    tests: ['test/unit/read-back.test.ts'],
  },
  {
    name: 'gap-ignored',
    harm: 'a batch that is missing completely is skipped',
    edits: [{ file: aligner, rule: 'point-continues-checkpoint', replace: '' }],
    tests: [alignModel, 'test/unit/aligner.test.ts'],
  },
  {
    name: 'void-dropped',
    harm: 'a follower stops for ever at the records of a torn batch',
    edits: [{ file: aligner, rule: 'void-boundaries-dropped', replace: '' }],
    tests: [alignModel, 'test/unit/aligner.test.ts'],
  },
  {
    name: 'void-content-kept',
    harm: 'rows of a torn batch are applied with the next one',
    edits: [
      {
        file: aligner,
        rule: 'void-content-dropped',
        replace: `for (const held of this.#held) {
      if (first.kind === 'point') forget(held);
      held.boundary = null;
    }`,
      },
    ],
    tests: [alignModel, 'test/unit/aligner.test.ts'],
  },
  {
    name: 'covered-at-equality',
    harm: 'the transaction that commits exactly at an exact stop is skipped',
    edits: [
      {
        file: 'src/change/position.ts',
        rule: 'covered-strictly-below',
        part: ' < ',
        replace: ' <= ',
      },
    ],
    tests: ['test/unit/position.test.ts', 'test/unit/coalesce.test.ts'],
  },
  {
    name: 'exact-stop-moves-offsets',
    harm: 'after an exact stop the rest of its batch is never read',
    edits: [
      {
        file: 'src/follower/apply/apply-portion.ts',
        rule: 'exact-stop-keeps-offsets',
        part: 'all.slice(0, -1)',
        replace: 'all.slice(0)',
      },
    ],
    tests: [alignModel],
  },
  {
    name: 'truncate-out-of-order',
    harm: 'rows written before a TRUNCATE come back after it',
    edits: [
      { file: 'src/follower/apply/coalesce.ts', rule: 'barrier-after-earlier-rows', replace: '' },
    ],
    tests: [alignModel, 'test/unit/coalesce.test.ts'],
  },
  {
    name: 'modifier-ignored',
    harm: 'values of a column whose type was widened are truncated on followers',
    edits: [
      {
        file: 'src/leader/tables/table-difference.ts',
        rule: 'type-includes-modifier',
        part: ' && sent.typeModifier === typeModifier',
        replace: '',
      },
    ],
    tests: ['test/unit/table-difference.test.ts'],
  },
  {
    name: 'other-identity-ignored',
    harm: 'after a change of the primary key a row stays under its old key too',
    edits: [
      {
        file: 'src/leader/tables/table-difference.ts',
        rule: 'identity-as-sent',
        replace: 'return null;',
      },
    ],
    tests: ['test/unit/table-difference.test.ts'],
  },
  {
    name: 'equality-uncompared',
    harm: 'two rows of the leader are one row on a follower with another collation',
    edits: [
      { file: 'src/fleet/preflight/judge-copies.ts', rule: 'same-equality-of-keys', replace: '' },
    ],
    tests: ['test/unit/preflight-copies.test.ts'],
  },
  {
    name: 'other-database-served',
    harm: 'a copied understudy.yaml takes a node away from its database',
    edits: [
      {
        file: 'src/fleet/node/judge-database.ts',
        rule: 'other-database-is-refused',
        replace: "return { kind: 'own' };",
      },
    ],
    tests: ['test/unit/judge-database.test.ts'],
  },
  {
    name: 'destroy-of-foreign-stream',
    harm: 'destroy --yes in a copied understudy.yaml removes the topics of a running cluster',
    edits: [
      {
        file: 'src/fleet/operations/judge-destroy.ts',
        rule: 'more-than-the-file-needs-the-stream-id',
        replace: '',
      },
    ],
    tests: ['test/unit/judge-destroy.test.ts'],
  },
  {
    name: 'unchanged-value-as-null',
    harm: 'a large value that an update does not change becomes NULL on followers',
    edits: [
      {
        file: 'src/leader/stream/transaction-builder.ts',
        rule: 'unsent-value-is-not-null',
        replace: 'if (kept !== undefined || index >= 0) return kept ?? null;',
      },
    ],
    tests: ['test/unit/transaction-builder.test.ts'],
  },
  {
    name: 'base-read-after-deletes',
    harm: 'a key that changes its spelling and back loses its row, and the follower stops',
    edits: [
      {
        file: 'src/follower/apply/row-actions.ts',
        rule: 'respelled-base-before-deletes',
        replace: 'if (deletes.length >= 0) return movesKey;',
      },
    ],
    tests: ['test/unit/row-fold.test.ts'],
  },
  {
    name: 'miscount-believed-at-once',
    harm: 'one wrong answer of a broker stops the leader for damage of the topic',
    edits: [
      {
        file: 'src/leader/stream/read-back.ts',
        rule: 'miscount-read-twice',
        replace: 'if (record !== undefined) throw error;',
      },
    ],
    tests: ['test/unit/read-back.test.ts'],
  },
  {
    name: 'doubted-node-promoted',
    harm: 'a node whose rows were found different leads, and its rows become those of all',
    edits: [
      {
        file: 'src/fleet/operations/judge-failover.ts',
        rule: 'doubts-refuse-promotion',
        replace: '',
      },
    ],
    tests: ['test/unit/judge-failover.test.ts'],
  },
  {
    name: 'lowered-lag-unrecorded',
    harm: 'a follower that is too late records damage, and compacted rows are called exact',
    edits: [
      {
        file: 'src/fleet/node/compaction-lag.ts',
        rule: 'smallest-lag-recorded',
        replace: 'if (known !== null || !Number.isSafeInteger(lagMs)) return;',
      },
    ],
    tests: ['test/unit/log-fit.test.ts'],
  },
  ...nodeShortcuts,
];
