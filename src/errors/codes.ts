/**
 * Every code of a failure that a person can meet: its exit code, whether the same step may succeed
 * later without intervention, and what it means. docs/errors.md is generated from this table.
 */
export const exitCodes = {
  ok: 0,
  usage: 1,
  unreachable: 2,
  notOwner: 3,
  notAsRequired: 4,
  timedOut: 5,
  needsAllowDataLoss: 6,
  dataDiscarded: 7,
  different: 8,
  bug: 70,
} as const;

export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes];

interface ErrorEntry {
  readonly exit: ExitCode;
  /** Whether the same step may succeed later without intervention. */
  readonly retry: boolean;
  readonly meaning: string;
}

function entry(exit: keyof typeof exitCodes, retry: boolean, meaning: string): ErrorEntry {
  return { exit: exitCodes[exit], retry, meaning };
}

/** One line per code. A code is never renamed: scripts match on it. */
export const errorTable = {
  USAGE: entry('usage', false, 'The command line is not one of the documented forms.'),
  CONFIG_INVALID: entry('usage', false, 'understudy.yaml is missing, malformed or contradictory.'),
  NODE_UNKNOWN: entry('usage', false, 'The node is not named in understudy.yaml.'),
  LABEL_INVALID: entry('usage', false, 'A point label has the wrong form.'),
  NOT_IN_THIS_VERSION: entry(
    'usage',
    false,
    'The feature is designed but not part of this version.',
  ),
  POSTGRES_UNREACHABLE: entry(
    'unreachable',
    true,
    'A Postgres server cannot be reached or refuses the login.',
  ),
  KAFKA_UNREACHABLE: entry(
    'unreachable',
    true,
    'No Kafka broker can be reached, or it refuses the login.',
  ),
  REGISTRY_UNREACHABLE: entry(
    'unreachable',
    true,
    'The schema registry cannot be reached or refuses the login.',
  ),
  NODE_LOCKED: entry('notOwner', false, 'Another agent serves this node.'),
  LOST_LEADERSHIP: entry(
    'notOwner',
    false,
    'Another node claimed the next epoch, or this node never owned one.',
  ),
  CLAIM_LOST: entry('notOwner', false, 'Another claim for the same epoch came first.'),
  RESTORED_COPY: entry(
    'notOwner',
    false,
    'The database is an older copy of a node that has started since.',
  ),
  OTHER_DATABASE: entry(
    'notAsRequired',
    false,
    'The node is served from another database than the one that understudy.yaml names.',
  ),
  NEEDS_STREAM_ID: entry(
    'notAsRequired',
    false,
    'The cluster is in use, or not all of it is reached: `destroy` has to name its stream.',
  ),
  PREREQUISITE: entry(
    'notAsRequired',
    false,
    'A server, a setting or a permission is not as required.',
  ),
  TABLE_UNSUPPORTED: entry('notAsRequired', false, 'A table cannot be replicated as it is.'),
  TABLE_NOT_EMPTY: entry(
    'notAsRequired',
    false,
    'A table that has to be empty holds rows: those of a follower, or rows without a key.',
  ),
  ALREADY_INITIALISED: entry('notAsRequired', false, 'The cluster exists already.'),
  NOT_INITIALISED: entry('notAsRequired', false, 'The cluster has not been initialised.'),
  TOPIC_MISMATCH: entry(
    'notAsRequired',
    false,
    'The topic was re-created or emptied, or another stream was written to it.',
  ),
  FORMAT_TOO_NEW: entry(
    'notAsRequired',
    false,
    'A newer version of Understudy wrote what was read.',
  ),
  SCHEMA_DIFFERS: entry(
    'notAsRequired',
    false,
    'A table differs from its description in the stream.',
  ),
  SCHEMA_BEHIND: entry(
    'notAsRequired',
    true,
    'The leader’s table was changed, and the same change is not made on this node yet.',
  ),
  SCHEMA_CHANGED: entry(
    'notAsRequired',
    false,
    'A published table was changed, dropped or re-created.',
  ),
  SCHEMA_DUMP_FAILED: entry(
    'notAsRequired',
    false,
    'pg_dump is missing, older than the server, or cannot read the schema.',
  ),
  SCHEMA_BUILD_FAILED: entry(
    'notAsRequired',
    false,
    'A follower’s Postgres refuses a statement of the leader’s schema.',
  ),
  MESSAGE_UNKNOWN: entry(
    'notAsRequired',
    false,
    'Postgres or the topic sent something that this version does not know.',
  ),
  TYPE_RANGE: entry('notAsRequired', false, 'A value is outside the range of its Avro type.'),
  RECORD_TOO_LARGE: entry('notAsRequired', false, 'A row is larger than the topic accepts.'),
  SLOT_MISMATCH: entry(
    'notAsRequired',
    false,
    'The replication slot is missing, lost, or ahead of the topic.',
  ),
  TIMELINE_MISMATCH: entry(
    'notAsRequired',
    false,
    'The server is not the one on which the epoch began.',
  ),
  FORKED: entry(
    'notAsRequired',
    false,
    'A node applied transactions that the leader of the next epoch never had.',
  ),
  DAMAGED: entry(
    'notAsRequired',
    false,
    'Record counts do not match a consistency point: the topic lost or duplicated records.',
  ),
  NODE_DAMAGED: entry(
    'notAsRequired',
    false,
    'A node lacks a row of its own, or a broker gave it a wrong answer: other nodes go on.',
  ),
  UNFINISHED: entry(
    'notAsRequired',
    false,
    'A node is not exact yet: it is being built, or a table of it is backfilling.',
  ),
  NOT_PROMOTABLE: entry('notAsRequired', false, 'The node cannot be promoted.'),
  STALE: entry(
    'notAsRequired',
    false,
    'A node was offline longer than the topic keeps every change.',
  ),
  DETACHED: entry('notAsRequired', false, 'The node was detached: it is an independent database.'),
  ROW_UNREADABLE: entry(
    'notAsRequired',
    true,
    'The leader’s Postgres cannot read a row that has to be published.',
  ),
  ROW_REFUSED: entry('notAsRequired', false, 'A follower’s Postgres refuses a row.'),
  TIMED_OUT: entry('timedOut', true, 'An expected event did not happen in time.'),
  NEEDS_ALLOW_DATA_LOSS: entry(
    'needsAllowDataLoss',
    false,
    'Acknowledged writes may be lost; `--allow-data-loss` has to allow it.',
  ),
  DIFFERENT: entry('different', false, 'Verification found a difference.'),
  BUG: entry('bug', false, 'An internal rule of Understudy was broken; please report it.'),
} as const satisfies Record<string, ErrorEntry>;

export type ErrorCode = keyof typeof errorTable;
