/**
 * Judges one node: its server, its settings, the permissions of its role. One finding per cause,
 * with the SQL that resolves it. Any node may be promoted one day, so each is judged both as a
 * leader and as a follower. Pure.
 */
import { quoteIdentifier } from '../../catalog/postgres-session.ts';
import type { ServerFacts } from '../../catalog/read-catalog.ts';
import { bytesText } from '../../change/amounts.ts';
import { enumerate, errorFinding, type Finding, warningFinding } from './finding.ts';
import { type NodeFacts, versionMin } from './read-node.ts';

export function nodeObject(name: string): string {
  return `node ${name}`;
}

export function judgeVersion(name: string, server: ServerFacts): Finding {
  const major = Math.floor(server.version / 10_000);
  return errorFinding(
    'PREREQUISITE',
    nodeObject(name),
    `node ${name} is PostgreSQL ${major}; ${versionMin / 10_000} or later is needed`,
    `Upgrade the server to PostgreSQL ${versionMin / 10_000} or later.`,
  );
}

export function judgeNode(facts: NodeFacts, cluster: string): Finding[] {
  return [
    ...judgeServer(facts),
    ...judgeOwner(facts, cluster),
    ...judgePermissions(facts),
    ...judgeSlotLimits(facts),
    ...judgePreparedTransactions(facts),
    ...judgeSequences(facts),
  ];
}

/**
 * Server encodings in which Postgres reads two byte sequences as one letter: with them two rows of
 * a table could have one key in the topic.
 */
const doubleEncodings: ReadonlySet<string> = new Set(['EUC_JP', 'EUC_TW']);
const newDatabase =
  "Re-create it: `CREATE DATABASE <database> TEMPLATE template0 ENCODING 'UTF8';`";

function setOnServer(setting: string, value: string): string {
  return `ALTER SYSTEM SET ${setting} = ${value};`;
}

/** A setting that needs no restart. */
function afterReload(setting: string, value: string): string {
  return `\`${setOnServer(setting, value)}\` \`SELECT pg_reload_conf();\``;
}

function judgeServer({ name, server, database }: NodeFacts): Finding[] {
  const object = nodeObject(name);
  const required = (message: string, hint: string): Finding =>
    errorFinding('PREREQUISITE', object, message, hint);
  /** ALTER SYSTEM changes these settings only at the next start. */
  const restarted = (message: string, setting: string, value: string): Finding => {
    const statement = setOnServer(setting, value);
    const hint = `\`${statement}\` Then restart the server.`;
    const sql = [{ node: name, statement, caution: null }];
    return errorFinding('PREREQUISITE', object, message, hint, { sql });
  };
  const findings: Finding[] = [];
  if (server.inRecovery) {
    const message = `the server of node ${name} is in recovery: it is a standby of another`;
    findings.push(required(message, 'Use a server that accepts writes, or promote this one.'));
  }
  if (server.walLevel !== 'logical') {
    const message = `wal_level of node ${name} is ${server.walLevel}, so its WAL cannot be decoded`;
    findings.push(restarted(message, 'wal_level', 'logical'));
  }
  // A leader uses its own slot and sender already.
  const freeSlots = server.maxSlots - server.usedSlots;
  if (freeSlots < 1 && !database.hasOwnSlot) {
    const used = `${server.usedSlots} of ${server.maxSlots} are used`;
    const message = `node ${name} has no replication slot free: ${used}`;
    findings.push(restarted(message, 'max_replication_slots', String(server.maxSlots + 4)));
  }
  if (server.maxWalSenders - database.foreignWalSenders < 1) {
    const used = `${database.foreignWalSenders} of ${server.maxWalSenders} are used`;
    const message = `node ${name} has no WAL sender free: ${used}`;
    findings.push(restarted(message, 'max_wal_senders', String(server.maxWalSenders + 4)));
  }
  if (server.databaseEncoding === 'SQL_ASCII') {
    const message = `the database of node ${name} is SQL_ASCII: its encoding is unknown`;
    findings.push(required(message, newDatabase));
  }
  if (doubleEncodings.has(server.databaseEncoding)) {
    const message =
      `the database of node ${name} is ${server.databaseEncoding}, which writes some letters in ` +
      'two ways: keys that differ there are one in UTF-8';
    findings.push(required(message, newDatabase));
  }
  return findings;
}

/** The database of a node may belong to that node of this cluster, or to no node yet. */
function judgeOwner({ name, identity }: NodeFacts, cluster: string): Finding[] {
  if (identity === null || (identity.cluster === cluster && identity.name === name)) return [];
  return [
    errorFinding(
      'ALREADY_INITIALISED',
      nodeObject(name),
      `the database of node ${name} is node ${identity.name} of the cluster ${identity.cluster}`,
      `Correct the URL of ${name}, or take the database out of ${identity.cluster}: ` +
        `\`understudy detach ${identity.name}\``,
    ),
  ];
}

/** A superuser has them all. The first one comes first because its remedy grants the others. */
function judgePermissions(facts: NodeFacts): Finding[] {
  const { name, server, database } = facts;
  if (server.isSuperuser) return [];
  const role = quoteIdentifier(server.currentUser);
  const databaseName = quoteIdentifier(server.database);
  const foreignTables = enumerate(database.notOwned.map(({ table }) => table));
  const owners = [...new Set(database.notOwned.map(({ owner }) => owner))].join(', ');
  const missing: MissingPermission[] = [
    {
      isMissing: !facts.canCreateEventTriggers,
      what: 'create event triggers, which keep schema changes off a follower',
      statement: `ALTER ROLE ${role} SUPERUSER;`,
      more: ' It grants every other permission too.',
      caution: 'it may then do everything on the server',
    },
    {
      isMissing: !server.canReplicate,
      what: 'replicate',
      statement: `ALTER ROLE ${role} REPLICATION;`,
    },
    {
      isMissing: !server.canSetReplicaRole,
      what: 'set session_replication_role',
      statement: `GRANT SET ON PARAMETER session_replication_role TO ${role};`,
    },
    {
      isMissing: !database.canCreate,
      what: `create a schema and a publication in ${server.database}`,
      statement: `GRANT CREATE ON DATABASE ${databaseName} TO ${role};`,
    },
    {
      isMissing: !database.ownsDatabase,
      what: `set default_transaction_read_only of ${server.database}, which it does not own`,
      statement: `ALTER DATABASE ${databaseName} OWNER TO ${role};`,
      caution: 'the database has another owner then',
    },
    {
      isMissing: !database.readsAllStats,
      what: 'see the transactions of other sessions, for which the write guard waits',
      statement: `GRANT pg_read_all_stats TO ${role};`,
    },
    {
      isMissing: database.notOwned.length > 0,
      what: `create triggers on tables that it does not own: ${foreignTables}`,
      statement: `GRANT ${owners} TO ${role};`,
      more: ' Or make it the owner of these tables.',
    },
    {
      isMissing: database.forcedRowSecurity.length > 0 && !database.bypassesRowSecurity,
      what: `see every row: row security is forced on ${enumerate(database.forcedRowSecurity)}`,
      statement: `ALTER ROLE ${role} BYPASSRLS;`,
    },
  ];
  return missing
    .filter(({ isMissing }) => isMissing)
    .map(({ what, statement, more = '', caution = null }) =>
      errorFinding(
        'PREREQUISITE',
        nodeObject(name),
        `on node ${name} the role ${server.currentUser} may not ${what}`,
        `As a superuser: \`${statement}\`${more}`,
        { sql: [{ node: name, statement, caution }] },
      ),
    );
}

interface MissingPermission {
  readonly isMissing: boolean;
  readonly what: string;
  readonly statement: string;
  /** What the hint says after the statement. */
  readonly more?: string;
  readonly caution?: string;
}

/**
 * The WAL that a slot may keep. Without a limit an outage ends with a full disk, which stops the
 * leader's writers; with a limit that a single checkpoint reaches, it ends the stream within
 * moments.
 */
function judgeSlotLimits({ name, database }: NodeFacts): Finding[] {
  const { slotKeepBytes, maxWalBytes, slotIdleTimeout } = database;
  const object = nodeObject(name);
  const reload = { node: name, statement: 'SELECT pg_reload_conf();' };
  const caution = 'choose the size by the longest outage to survive, and the disk';
  const kept = [
    { node: name, statement: setOnServer('max_slot_wal_keep_size', "'100GB'"), caution },
    { ...reload, caution },
  ];
  const findings: Finding[] = [];
  if (slotKeepBytes === null) {
    const message =
      `max_slot_wal_keep_size of node ${name} is not set: WAL that Kafka or an agent has not ` +
      'taken yet may fill its disk';
    const hint =
      'Set it to the WAL of the longest outage to survive, if the disk has room for it: ' +
      afterReload('max_slot_wal_keep_size', "'100GB'");
    findings.push(warningFinding('SLOT_UNLIMITED', object, message, hint, { sql: kept }));
  } else if (slotKeepBytes < maxWalBytes) {
    const message =
      `max_slot_wal_keep_size of node ${name} is ${bytesText(slotKeepBytes)}, less than ` +
      `max_wal_size (${bytesText(maxWalBytes)}): in a short outage the slot, and so the stream, ` +
      'is lost';
    const hint =
      'Set it to the WAL of the longest outage to survive: ' +
      afterReload('max_slot_wal_keep_size', "'100GB'");
    findings.push(warningFinding('SLOT_MAY_BE_LOST', object, message, hint, { sql: kept }));
  }
  if (slotIdleTimeout !== null && slotIdleTimeout !== '0') {
    const message =
      `idle_replication_slot_timeout of node ${name} is ${slotIdleTimeout}: past it the slot, ` +
      'and so the stream, is lost';
    const hint =
      'Make it longer than an outage may last, or: ' +
      afterReload('idle_replication_slot_timeout', '0');
    const statement = setOnServer('idle_replication_slot_timeout', '0');
    const sql = [
      { node: name, statement, caution: null },
      { ...reload, caution: null },
    ];
    findings.push(warningFinding('SLOT_MAY_BE_LOST', object, message, hint, { sql }));
  }
  return findings;
}

function judgePreparedTransactions({ name, database }: NodeFacts): Finding[] {
  const gids = database.preparedTransactions;
  if (gids.length === 0) return [];
  return [
    warningFinding(
      'PREPARED_TRANSACTIONS',
      nodeObject(name),
      `prepared transactions are open on the server of node ${name}: ${enumerate(gids)}`,
      "A slot is not ready before they end: `COMMIT PREPARED '<name>'` or " +
        "`ROLLBACK PREPARED '<name>'`.",
    ),
  ];
}

/** As a leader the node could not publish their values, and at its promotion not set them. */
function judgeSequences({ name, server, database }: NodeFacts): Finding[] {
  const { closedSequences } = database;
  if (closedSequences.length === 0) return [];
  const role = quoteIdentifier(server.currentUser);
  return [
    warningFinding(
      'SEQUENCE_CLOSED',
      nodeObject(name),
      `on node ${name} the role ${server.currentUser} may not read or set sequences: ` +
        `${enumerate(closedSequences)}; after a promotion they may give values that are in use`,
      `As their owner: \`GRANT SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA <schema> TO ${role};\` ` +
        `\`GRANT USAGE ON SCHEMA <schema> TO ${role};\``,
    ),
  ];
}
