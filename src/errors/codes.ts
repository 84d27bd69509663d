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
    'Another node claimed the next epoch, or this one was never the owner.',
  ),
  CLAIM_LOST: entry('notOwner', false, 'Another claim for the same epoch came first.'),
  RESTORED_COPY: entry(
    'notOwner',
    false,
    'The database is an older copy of a node that has started since.',
  ),
  PREREQUISITE: entry(
    'notAsRequired',
    false,
    'A server, a setting or a permission is not as required.',
  ),
  TABLE_UNSUPPORTED: entry('notAsRequired', false, 'A table cannot be replicated as it stands.'),
  TABLE_NOT_EMPTY: entry(
    'notAsRequired',
    false,
    'A table holds rows that cannot be taken over: a follower’s own, or rows without a key.',
  ),
  ALREADY_INITIALISED: entry('notAsRequired', false, 'The cluster exists already.'),
  NOT_INITIALISED: entry('notAsRequired', false, 'The cluster has not been initialised.'),
  TOPIC_MISMATCH: entry(
    'notAsRequired',
    false,
    'The topic is not the one this stream was written to.',
  ),
  FORMAT_TOO_NEW: entry(
    'notAsRequired',
    false,
    'A newer version of Understudy wrote what was read.',
  ),
  SCHEMA_DIFFERS: entry('notAsRequired', false, 'A table differs from what the stream says of it.'),
  SCHEMA_CHANGED: entry(
    'notAsRequired',
    false,
    'A published table was changed, dropped or made again.',
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
    'Postgres or the topic said something this version does not know.',
  ),
  TYPE_RANGE: entry('notAsRequired', false, 'A value is outside of what its Avro type can hold.'),
  RECORD_TOO_LARGE: entry('notAsRequired', false, 'A row is larger than the topic accepts.'),
  SLOT_MISMATCH: entry('notAsRequired', false, 'The slot is missing, lost, or ahead of the topic.'),
  TIMELINE_MISMATCH: entry('notAsRequired', false, 'The server is not the one the epoch began on.'),
  FORKED: entry(
    'notAsRequired',
    false,
    'A node applied what the leader of the next epoch never had.',
  ),
  DAMAGED: entry(
    'notAsRequired',
    false,
    'The topic does not add up: records are missing or too many.',
  ),
  UNFINISHED: entry(
    'notAsRequired',
    false,
    'A node lacks rows from before the stream, or is being built: it is not exact yet.',
  ),
  NOT_PROMOTABLE: entry('notAsRequired', false, 'The node cannot take the lead.'),
  STALE: entry('notAsRequired', false, 'A node was away longer than the topic keeps each change.'),
  DETACHED: entry('notAsRequired', false, 'The node was detached: it is a database of its own.'),
  ROW_REFUSED: entry('notAsRequired', false, 'A follower’s Postgres refuses a row.'),
  TIMED_OUT: entry('timedOut', true, 'What was waited for did not happen in time.'),
  NEEDS_ALLOW_DATA_LOSS: entry(
    'needsAllowDataLoss',
    false,
    'Acknowledged writes may be lost; that must be allowed by name.',
  ),
  DIFFERENT: entry('different', false, 'Verification found a difference.'),
  BUG: entry('bug', false, 'Understudy broke one of its own rules; please report it.'),
} as const satisfies Record<string, ErrorEntry>;

export type ErrorCode = keyof typeof errorTable;
