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
        find: 'const { message } = event;',
        replace: `const { message } = event;
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
        find: 'const offsets = await producer.commit();',
        replace: `this.#parts.wal.confirm(point.upto);
    const offsets = await producer.commit();`,
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
        find: 'while (!this.#isSeen(checkpoint.at)) {',
        replace: `wal.confirm(point.upto);
    while (!this.#isSeen(checkpoint.at)) {`,
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
        find: 'confirm(point.upto)',
        replace: 'confirm((point.upto + 1n) as never)',
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
        find: 'writeBigUInt64BE(status.flush, 9)',
        replace: 'writeBigUInt64BE(status.flush + 1n, 9)',
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
        find: 'if (point.label !== null) await recordLabel(point.label, point, checkpoint);',
        replace: `if (point.label !== null) {
      recordLabel(point.label, point, checkpoint).catch(() => undefined);
    }`,
      },
    ],
    tests: [publishModel],
  },
  {
    name: 'label-inside-batch',
    harm: 'a named point does not follow its transaction directly',
    edits: [
      {
        file: batcher,
        find: 'if (this.#label !== null && !this.#openTransaction) return false;',
        replace: '',
      },
    ],
    tests: [publishModel, 'test/unit/batcher.test.ts'],
  },
  {
    name: 'keepalive-inside-transaction',
    harm: 'a point covers transactions that are not in its batch',
    edits: [{ file: batcher, find: '!this.#openTransaction && walEnd', replace: 'walEnd' }],
    tests: [publishModel, 'test/unit/batcher.test.ts'],
  },
  {
    name: 'batch-ends-inside-transaction',
    harm: 'followers show a part of a transaction',
    edits: [
      {
        file: batcher,
        find: '!this.#openTransaction && this.#hasTransactions()',
        replace: 'this.#hasTransactions()',
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
        find: 'this.#counts = new Array(partitions).fill(0);',
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
        find: `end.pastCheckpoint.length > 0 ? 'over' : 'begun'`,
        replace: `'begun'`,
      },
    ],
    tests: ['test/unit/own-epoch.test.ts', publishModel, claimModel],
  },
  {
    name: 'slot-ahead-accepted',
    harm: 'streaming begins after transactions that are missing in the log',
    edits: [
      {
        file: 'src/leader/stream/slot.ts',
        find: 'slot.confirmedFlushLsn > start',
        replace: 'false',
      },
    ],
    tests: ['test/unit/check-slot.test.ts'],
  },
  {
    name: 'verify-skipped',
    harm: 'a deposed leader writes into the epoch of its successor after a pause',
    edits: [
      {
        file: 'src/control/owning.ts',
        find: `=== 'initing' ? verify(owning, owning.phase.epoch)`,
        replace: `=== 'initing' ? drain(owning, owning.phase.epoch)`,
      },
    ],
    tests: [claimModel, 'test/unit/claim-owning.test.ts'],
  },
  {
    name: 'predecessor-unchecked',
    harm: 'a claim of an older log with the same name deposes the leader',
    edits: [
      {
        file: 'src/control/claim.ts',
        find: 'claim.epoch === epoch && claim.predecessor === predecessor',
        replace: 'claim.epoch === epoch && predecessor !== undefined',
      },
    ],
    tests: ['test/unit/claim.test.ts'],
  },
  {
    name: 'counts-unchecked',
    harm: 'a record that the topic lost is not detected',
    edits: [{ file: aligner, find: 'count === counted)', replace: 'counted !== -1)' }],
    tests: [alignModel, 'test/unit/aligner.test.ts'],
  },
  {
    name: 'read-back-unchecked',
    harm: 'damage is not detected while no follower runs',
    edits: [
      {
        file: 'src/leader/stream/read-back.ts',
        find: 'if (this.#count !== point.counts[this.#partition]) {',
        replace: 'if (this.#count < 0) {',
      },
    ],
    tests: ['test/unit/read-back.test.ts'],
  },
  {
    name: 'gap-ignored',
    harm: 'a batch that is missing completely is skipped',
    edits: [
      {
        file: aligner,
        find: 'compareEpochLsn(point.previous.at, this.#checkpoint.at) !== 0',
        replace: 'compareEpochLsn(point.previous.at, this.#checkpoint.at) === 2',
      },
    ],
    tests: [alignModel, 'test/unit/aligner.test.ts'],
  },
  {
    name: 'void-dropped',
    harm: 'a follower stops for ever at the records of a torn batch',
    edits: [{ file: aligner, find: 'this.#dropVoided(boundaries)', replace: 'false' }],
    tests: [alignModel, 'test/unit/aligner.test.ts'],
  },
  {
    name: 'void-content-kept',
    harm: 'rows of a torn batch are applied with the next one',
    edits: [
      {
        file: aligner,
        find: 'for (const held of this.#held) forget(held);',
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
        find: 'position.commitLsn < upto.lsn',
        replace: 'position.commitLsn <= upto.lsn',
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
        find: 'stopAt === null ? all : all.slice(0, -1)',
        replace: 'stopAt === null ? all : all.slice(0)',
      },
    ],
    tests: [alignModel],
  },
  {
    name: 'truncate-out-of-order',
    harm: 'rows written before a TRUNCATE come back after it',
    edits: [
      {
        file: 'src/follower/apply/coalesce.ts',
        find: 'flush();\n      pushBarrier(steps, barrier);',
        replace: 'pushBarrier(steps, barrier);',
      },
    ],
    tests: [alignModel, 'test/unit/coalesce.test.ts'],
  },
  {
    name: 'modifier-ignored',
    harm: 'values of a column whose type was widened are truncated on followers',
    edits: [
      {
        file: 'src/leader/tables/table-difference.ts',
        find: ' && sent.typeModifier === typeModifier;',
        replace: ';',
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
        find: `return isSame ? null : 'it had another identity for a while';`,
        replace: 'return isSame ? null : null;',
      },
    ],
    tests: ['test/unit/table-difference.test.ts'],
  },
  {
    name: 'equality-uncompared',
    harm: 'two rows of the leader are one row on a follower with another collation',
    edits: [
      {
        file: 'src/fleet/preflight/judge-copies.ts',
        find: 'if (equality !== equalityOf(copy)) {',
        replace: 'if (equality === null) {',
      },
    ],
    tests: ['test/unit/preflight-copies.test.ts'],
  },
  {
    name: 'unchanged-value-as-null',
    harm: 'a large value that an update does not change becomes NULL on followers',
    edits: [
      {
        file: 'src/leader/stream/transaction-builder.ts',
        find: 'if (kept !== undefined) return kept;',
        replace: 'if (kept === undefined || kept !== undefined) return kept ?? null;',
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
        find: 'if (table.oneSpelling || deletes.length === 0) return movesKey;',
        replace: 'if (deletes.length >= 0) return movesKey;',
      },
    ],
    tests: ['test/unit/row-fold.test.ts'],
  },
  ...nodeShortcuts,
];
