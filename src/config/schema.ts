/**
 * The schema of understudy.yaml: it turns the parsed YAML into a typed file with defaults and
 * milliseconds; `${VAR}` is still in its texts. Every object is strict: an unknown key is an error.
 * Settings of later versions are known here, so that they can be refused by name.
 */
import { z } from 'zod';
import { formatDurationMs, parseDurationMs } from '../change/amounts.ts';
import { changesTopicSettings } from '../topic/records/layout.ts';

/** Shorter intervals make more points than rows on a quiet leader. */
const shortestPointIntervalMs = 100;
/** Only a point shows a follower of a quiet leader that it is current. */
const longestPointIntervalMs = 3_600_000;
/** Every point is written to every partition: more partitions cost more than they bring. */
const maxPartitions = 256;
const maxReplication = 32_767;
const defaultPointIntervalMs = 1000;

const text = z.string().min(1, 'must not be empty');

function duration(leastMs: number, mostMs: number) {
  return z
    .string({ error: 'must be a duration such as 250ms, 1s or 15m' })
    .transform((raw, ctx) => {
      const ms = parseDurationMs(raw);
      if (ms === null) {
        ctx.addIssue({ code: 'custom', message: 'must be a duration such as 250ms, 1s or 15m' });
        return z.NEVER;
      }
      if (ms < leastMs || ms > mostMs) {
        const range = `${formatDurationMs(leastMs)} to ${formatDurationMs(mostMs)}`;
        ctx.addIssue({ code: 'custom', message: `must be in ${range}` });
        return z.NEVER;
      }
      return ms;
    });
}

const nodeShape = {
  url: text,
  delay: duration(0, 7 * 86_400_000).default(0),
};

const sslShape = {
  ca: text.optional(),
  cert: text.optional(),
  key: text.optional(),
  rejectUnauthorized: z.boolean().optional(),
};

const saslShape = {
  mechanism: z.enum(['plain', 'scram-sha-256', 'scram-sha-512']),
  username: text,
  password: text,
};

const topicSettings = z
  .record(
    z.string().regex(/^[a-z][a-z0-9.]*$/, 'is not the name of a Kafka topic setting'),
    z.union([z.string(), z.number(), z.boolean()], { error: 'must be a text or a number' }),
  )
  .superRefine((settings, ctx) => {
    // Followers rely on both: without compaction rows expire, and with producer timestamps the
    // age of a record in the log is unknown.
    const needed = { 'cleanup.policy': 'compact', 'message.timestamp.type': 'LogAppendTime' };
    for (const [name, value] of Object.entries(needed)) {
      if (settings[name] !== undefined && settings[name] !== value) {
        ctx.addIssue({ code: 'custom', path: [name], message: `must stay ${value}` });
      }
    }
  });

const kafkaShape = {
  brokers: z.array(text).min(1, 'must name at least one broker'),
  partitions: z.int().min(1).max(maxPartitions).default(1),
  replication: z.int().min(1).max(maxReplication).nullable().default(null),
  topic: topicSettings.default({}),
  ssl: z.union([z.boolean(), z.strictObject(sslShape)]).default(false),
  sasl: z.strictObject(saslShape).nullable().default(null),
  compression: z.enum(['none', 'gzip', 'snappy', 'lz4', 'zstd']).default('none'),
  producer: text.default('kafkajs'),
};

const authShape = { username: text, password: text };

const registryShape = {
  url: text,
  auth: z.strictObject(authShape).nullable().default(null),
};

const pointsShape = {
  every: duration(shortestPointIntervalMs, longestPointIntervalMs).default(defaultPointIntervalMs),
};

const fileShape = {
  cluster: z
    .string()
    .regex(/^[a-z][a-z0-9_]{0,39}$/, 'must be 1 to 40 of a-z, 0-9 and _, beginning with a letter'),
  nodes: z
    .record(
      z
        .string()
        .regex(
          /^[a-z][a-z0-9_-]{0,31}$/,
          'must be 1 to 32 of a-z, 0-9, _ and -, beginning with a letter',
        ),
      z.strictObject(nodeShape),
    )
    .refine((nodes) => Object.keys(nodes).length > 0, 'must name at least one node'),
  tables: z
    .array(z.string().regex(/^[^.]+\..+$/, 'must be schema.table; * matches any text'))
    .min(1, 'must hold at least one pattern; leave it out for all tables')
    .nullable()
    .default(null),
  kafka: z.strictObject(kafkaShape),
  registry: z.strictObject(registryShape),
  points: z.strictObject(pointsShape).default({ every: defaultPointIntervalMs }),
  durability: z
    .string()
    .regex(/^(async|log|apply:[1-9][0-9]{0,2})$/, 'must be async, log or apply:N')
    .default('async'),
  ddl: z.enum(['replicate', 'manual', 'refuse']).nullable().default(null),
  keyless: z.enum(['refuse', 'append']).default('refuse'),
  rebuild: z.enum(['swap', 'in-place', 'manual']).default('swap'),
  pgDump: text.default('pg_dump'),
  maintenanceDatabase: text.default('postgres'),
};

/** All that a follower has not applied must still be in the topic when its agent restarts. */
export const fileSchema = z.strictObject(fileShape).superRefine(({ nodes, kafka }, ctx) => {
  const overrides = Object.entries(kafka.topic).map(([name, value]) => [name, String(value)]);
  const settings = changesTopicSettings(1, Object.fromEntries(overrides));
  const lagMs = Number(settings['min.compaction.lag.ms']);
  for (const [name, { delay }] of Object.entries(nodes)) {
    if (delay === 0 || delay < lagMs) continue;
    const message =
      `must be less than min.compaction.lag.ms of the topic, ${formatDurationMs(lagMs)}: ` +
      'shorten it, or raise that in kafka.topic';
    ctx.addIssue({ code: 'custom', path: ['nodes', name, 'delay'], message });
  }
});

export type ConfigFile = z.output<typeof fileSchema>;

/** The keys each object may have, by path; `*` is the name of any node. For suggestions. */
export const knownKeys: Readonly<Record<string, readonly string[]>> = {
  '': Object.keys(fileShape),
  'nodes.*': Object.keys(nodeShape),
  kafka: Object.keys(kafkaShape),
  'kafka.ssl': Object.keys(sslShape),
  'kafka.sasl': Object.keys(saslShape),
  registry: Object.keys(registryShape),
  'registry.auth': Object.keys(authShape),
  points: Object.keys(pointsShape),
};

interface LaterSetting {
  readonly path: readonly string[];
  /** The only value that this version supports, as it is written in the file. */
  readonly today: string;
}

/** Settings of the file that are designed, known, and not supported by this version. */
export function laterSettings(file: ConfigFile): readonly LaterSetting[] {
  const later: LaterSetting[] = [];
  const only = (path: readonly string[], value: string, today: string): void => {
    if (value !== today) later.push({ path, today });
  };
  only(['durability'], file.durability, 'async');
  if (file.ddl === 'replicate') only(['ddl'], file.ddl, 'manual or refuse');
  only(['kafka', 'compression'], file.kafka.compression, 'none');
  only(['kafka', 'producer'], file.kafka.producer, 'kafkajs');
  return later;
}
