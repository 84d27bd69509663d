/**
 * Mutations of new, delayed and detached nodes that tests without servers detect. Data only.
 */
import type { Mutation } from './mutation.ts';

const aligner = 'src/follower/apply/aligner.ts';

export const nodeShortcuts: readonly Mutation[] = [
  {
    name: 'delay-by-the-last-commit',
    harm: 'a delayed follower shows a row that is younger than its delay',
    edits: [
      {
        file: aligner,
        rule: 'newest-commit-of-batch',
        replace: 'held.newestCommitMicros = commitTimeMicros;',
      },
    ],
    tests: ['test/unit/aligner.test.ts'],
  },
  {
    name: 'delay-holds-only-itself',
    harm: 'a batch that is old enough is applied before an earlier one that still waits',
    edits: [
      { file: 'src/follower/apply/apply-portion.ts', rule: 'delay-keeps-order', replace: '' },
    ],
    tests: ['test/unit/apply-delay.test.ts'],
  },
  {
    name: 'void-schema-taken',
    harm: 'a new follower gets tables of a void schema record',
    edits: [
      {
        file: 'src/topic/records/schema-record.ts',
        rule: 'void-schema-left-out',
        part: ' && !isVoid(at)',
        replace: '',
      },
    ],
    tests: ['test/unit/schema-record.test.ts'],
  },
  {
    name: 'schema-parts-unchecked',
    harm: 'a new follower is built from an incomplete schema',
    edits: [{ file: 'src/topic/records/schema-record.ts', rule: 'schema-is-whole', replace: '' }],
    tests: ['test/unit/schema-record.test.ts'],
  },
  {
    name: 'dump-cut-inside-body',
    harm: 'a function of a dump is cut at its first semicolon',
    edits: [{ file: 'src/catalog/dump/sql-statements.ts', rule: 'case-has-an-end', replace: '' }],
    tests: ['test/unit/sql-statements.test.ts'],
  },
  {
    name: 'horizon-ignored',
    harm: 'a node with missing rows is promoted, and those rows are lost',
    edits: [
      {
        file: 'src/follower/state/exactness.ts',
        rule: 'exact-at-horizon',
        part: 'isWhole &&',
        replace: 'isWhole ||',
      },
    ],
    tests: ['test/model/bootstrap.test.ts', 'test/unit/bootstrap.test.ts'],
  },
  {
    name: 'slow-reading-accepted',
    harm: 'rows that were deleted come back on a node that was built slowly',
    edits: [
      {
        file: 'src/follower/bootstrap/horizon.ts',
        rule: 'read-within-tombstone-retention',
        replace: 'return readMs < 0 && deleteRetentionMs < 0;',
      },
    ],
    // The histories of test/model/bootstrap.test.ts are too few to show it in every run; those of
    // bootstrap-rules.test.ts, which strikes the same rule, are enough.
    tests: ['test/unit/bootstrap.test.ts'],
  },
  {
    name: 'far-value-as-position',
    harm: 'one id at the end of its range uses a sequence up at a promotion: inserts fail',
    edits: [
      {
        file: 'src/fleet/promotion/sequence-value.ts',
        rule: 'far-value-is-no-position',
        replace: 'if (used > anchor) return used;',
      },
    ],
    tests: ['test/unit/sequences.test.ts'],
  },
  {
    name: 'sequence-without-margin',
    harm: 'a promoted node gives ids that the former leader gave just before it died',
    edits: [
      {
        file: 'src/fleet/promotion/sequence-value.ts',
        rule: 'sequence-behind-last-read',
        part: 'base + margin <= limit',
        replace: 'margin < 0n',
      },
    ],
    tests: ['test/unit/sequences.test.ts'],
  },
];
