/**
 * GET /metrics in the text format of Prometheus: the figures of each node that this process serves,
 * as one text. An unknown figure has no sample: a zero would be wrong. Names and meanings are part
 * of what a version promises (docs/operations/watch.md). Pure.
 */
import type { EpochLsn } from '../change/position.ts';

export interface NodeFigures {
  readonly node: string;
  /** null while it does neither: starting, or before a retry after an error. */
  readonly role: 'leader' | 'follower' | null;
  /** The position up to which it has published, or applied. */
  readonly at: EpochLsn | null;
  /** Of the last transaction that was published or applied. */
  readonly commitTimeMs: number | null;
  readonly lagBytes: number | null;
  readonly lagMs: number | null;
  readonly slot: {
    /** null once it is lost. */
    readonly retainedBytes: number | null;
    /** null is no limit. */
    readonly safeBytes: number | null;
    readonly isLost: boolean;
  } | null;
  readonly batches: { readonly published: number; readonly applied: number };
  readonly records: { readonly published: number; readonly applied: number };
  readonly publishedBytes: number;
  /** Tables that are backfilling; a follower knows only their names. */
  readonly unfinished: readonly {
    readonly table: string;
    readonly rows: number | null;
    readonly estimate: number | null;
  }[];
  readonly failedAttempts: number;
  readonly lastFailure: {
    readonly code: string;
    readonly message: string;
    readonly atMs: number;
  } | null;
  readonly isKafkaAway: boolean;
  /** How long its agent has waited for an answer to a fetch; null while it waits for none. */
  readonly kafkaWaitMs: number | null;
  /** Since its Postgres last answered; null while the agent neither leads nor follows. */
  readonly postgresWaitMs: number | null;
}

export const metricsContentType = 'text/plain; version=0.0.4; charset=utf-8';

type Labels = Readonly<Record<string, string>>;

interface Sample {
  readonly labels?: Labels;
  readonly value: number;
}

interface Metric {
  readonly name: string;
  readonly type: 'gauge' | 'counter';
  readonly help: string;
  /** Nothing where the figure is not known. */
  readonly of: (figures: NodeFigures) => number | null | undefined | readonly Sample[];
}

/** LSNs above 2^53 lose their last bits here: a petabyte of WAL. */
const metrics: readonly Metric[] = [
  {
    name: 'understudy_role',
    type: 'gauge',
    help: '1 for the role that the agent has now; neither while it starts or before a retry.',
    of: ({ role }) =>
      (['leader', 'follower'] as const).map((one) => ({
        labels: { role: one },
        value: Number(role === one),
      })),
  },
  {
    name: 'understudy_epoch',
    type: 'gauge',
    help: 'The epoch of the position of the node.',
    of: ({ at }) => at?.epoch,
  },
  {
    name: 'understudy_lsn_bytes',
    type: 'gauge',
    help: 'The LSN, in its epoch, up to which the leader has published or a follower has applied.',
    of: ({ at }) => at && Number(at.lsn),
  },
  {
    name: 'understudy_commit_timestamp_seconds',
    type: 'gauge',
    help: 'When the last transaction that was published or applied was committed.',
    of: ({ commitTimeMs }) => commitTimeMs && commitTimeMs / 1000,
  },
  {
    name: 'understudy_lag_bytes',
    type: 'gauge',
    help: 'WAL of the leader that the topic does not have yet.',
    of: ({ lagBytes }) => lagBytes,
  },
  {
    name: 'understudy_lag_seconds',
    type: 'gauge',
    help: 'How old the last applied transaction is while a follower has more to apply, else 0.',
    of: ({ lagMs }) => (lagMs === null ? null : lagMs / 1000),
  },
  {
    name: 'understudy_slot_retained_wal_bytes',
    type: 'gauge',
    help: 'WAL that Postgres keeps because of the slot of the leader.',
    of: ({ slot }) => slot?.retainedBytes,
  },
  {
    name: 'understudy_slot_safe_wal_bytes',
    type: 'gauge',
    help: 'WAL that may be written before Postgres invalidates the slot; absent without a limit.',
    of: ({ slot }) => slot?.safeBytes,
  },
  {
    name: 'understudy_slot_lost',
    type: 'gauge',
    help: '1 once the slot of the leader is lost: the stream cannot continue.',
    of: ({ slot }) => slot && Number(slot.isLost),
  },
  {
    name: 'understudy_published_batches_total',
    type: 'counter',
    help: 'Kafka transactions that the leader has committed, those without rows included.',
    of: ({ batches }) => batches.published,
  },
  {
    name: 'understudy_published_records_total',
    type: 'counter',
    help: 'Records of rows, relations and truncates in them.',
    of: ({ records }) => records.published,
  },
  {
    name: 'understudy_published_bytes_total',
    type: 'counter',
    help: 'Bytes of keys and values sent to Kafka, also in transactions that were not committed.',
    of: ({ publishedBytes }) => publishedBytes,
  },
  {
    name: 'understudy_applied_batches_total',
    type: 'counter',
    help: 'Transactions in which a follower applied one or more batches.',
    of: ({ batches }) => batches.applied,
  },
  {
    name: 'understudy_applied_rows_total',
    type: 'counter',
    help: 'Rows written and deleted in them, after folding.',
    of: ({ records }) => records.applied,
  },
  {
    name: 'understudy_unfinished_tables',
    type: 'gauge',
    help: 'Tables that are backfilling: not all their rows are published, or applied.',
    of: ({ role, unfinished }) => (role === null ? null : unfinished.length),
  },
  {
    name: 'understudy_existing_rows_read',
    type: 'gauge',
    help: 'Rows of such a table that the leader has read.',
    of: ({ unfinished }) => tableSamples(unfinished, ({ rows }) => rows),
  },
  {
    name: 'understudy_existing_rows_estimate',
    type: 'gauge',
    help: 'The number of its rows, as Postgres estimates it.',
    of: ({ unfinished }) => tableSamples(unfinished, ({ estimate }) => estimate),
  },
  {
    name: 'understudy_failed_attempts_total',
    type: 'counter',
    help: 'Attempts of the agent that ended with an error and were retried.',
    of: ({ failedAttempts }) => failedAttempts,
  },
  {
    name: 'understudy_last_failure_timestamp_seconds',
    type: 'gauge',
    help: 'The time of the last of them, with the code of the error.',
    of: ({ lastFailure }) =>
      lastFailure && [{ labels: { code: lastFailure.code }, value: lastFailure.atMs / 1000 }],
  },
  {
    name: 'understudy_kafka_unreachable',
    type: 'gauge',
    help: '1 while the agent retries because no Kafka broker can be reached.',
    of: ({ isKafkaAway }) => Number(isKafkaAway),
  },
];

function tableSamples(
  tables: NodeFigures['unfinished'],
  of: (table: NodeFigures['unfinished'][number]) => number | null,
): Sample[] {
  return tables.flatMap((one) => {
    const value = of(one);
    return value === null ? [] : [{ labels: { table: one.table }, value }];
  });
}

export function metricsText(nodes: readonly NodeFigures[]): string {
  return metrics.map((metric) => metricText(metric, nodes)).join('');
}

function metricText({ name, type, help, of }: Metric, nodes: readonly NodeFigures[]): string {
  const lines = nodes.flatMap((figures) =>
    samplesOf(of(figures)).map(({ labels, value }) => {
      return `${name}${labelsText({ node: figures.node, ...labels })} ${value}\n`;
    }),
  );
  if (lines.length === 0) return '';
  return `# HELP ${name} ${escapeHelp(help)}\n# TYPE ${name} ${type}\n${lines.join('')}`;
}

function samplesOf(found: ReturnType<Metric['of']>): readonly Sample[] {
  if (found === null || found === undefined) return [];
  return typeof found === 'number' ? [{ value: found }] : found;
}

export function labelsText(labels: Labels): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escapeValue(value)}"`);
  return `{${pairs.join(',')}}`;
}

function escapeValue(text: string): string {
  return escapeHelp(text).replaceAll('"', '\\"');
}

function escapeHelp(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n');
}
