/**
 * Judges nodes against each other: whether two of them are one, and whether each has the leader's
 * tables. Flows in: facts of all nodes that answered; flows out: one finding per cause. Pure.
 */

import { qualifiedName, quoteIdentifier } from '../catalog/postgres-session.ts';
import { compareWithTable, giveColumnIds, shapeOf } from '../catalog/relation-ids.ts';
import {
  displayName,
  isAppendOnly,
  type KeylessTables,
  problemsOf,
  type TableShape,
} from '../catalog/table.ts';
import { enumerate, errorFinding, type Finding, warningFinding } from './preflight-finding.ts';
import type { NodeFacts } from './preflight-node.ts';
import { nodeObject } from './preflight-server.ts';
import { judgeTypes } from './preflight-types.ts';

/** Each pair of nodes once. */
export function judgePlaces(nodes: readonly NodeFacts[]): Finding[] {
  return nodes.flatMap((node, at) =>
    nodes.slice(0, at).flatMap((other) => {
      const finding = judgePair(other, node);
      return finding === null ? [] : [finding];
    }),
  );
}

function judgePair(a: NodeFacts, b: NodeFacts): Finding | null {
  if (a.server.systemId !== b.server.systemId) return null;
  const object = `${nodeObject(a.name)}, ${nodeObject(b.name)}`;
  if (a.database.serverStartedAt !== b.database.serverStartedAt) {
    return warningFinding(
      'SYSTEM_ID_COPIED',
      object,
      `the servers of ${a.name} and ${b.name} have the same system identifier: one is a copy`,
      'Make one of them with initdb, so that the two cannot be taken for each other.',
    );
  }
  if (a.database.oid === b.database.oid) {
    return errorFinding(
      'PREREQUISITE',
      object,
      `the nodes ${a.name} and ${b.name} are the same database`,
      `Give ${b.name} a database of its own and correct its URL.`,
    );
  }
  return warningFinding(
    'SHARED_SERVER',
    object,
    `the nodes ${a.name} and ${b.name} are on the same server: one failure takes both`,
    'Put them on servers of their own.',
  );
}

/** Text sorts and compares by the locale, so a follower with another one answers differently. */
export function judgeLocales(leader: NodeFacts, others: readonly NodeFacts[]): Finding[] {
  const localeOf = ({ database }: NodeFacts): string =>
    [database.provider, database.collate, database.ctype, database.locale ?? ''].join(' ').trim();
  return others.flatMap((node) => {
    const findings: Finding[] = [];
    if (localeOf(node) !== localeOf(leader)) {
      findings.push(
        warningFinding(
          'LOCALE_DIFFERS',
          nodeObject(node.name),
          `the locale of node ${node.name} is ${localeOf(node)}, ` +
            `that of ${leader.name} is ${localeOf(leader)}`,
          'Queries that sort text answer differently there: make it with the same locale.',
        ),
      );
    }
    const { databaseEncoding } = node.server;
    const isNarrower = databaseEncoding !== leader.server.databaseEncoding;
    if (isNarrower && databaseEncoding !== 'UTF8' && databaseEncoding !== 'SQL_ASCII') {
      findings.push(
        warningFinding(
          'ENCODING_DIFFERS',
          nodeObject(node.name),
          `the encoding of node ${node.name} is ${databaseEncoding}, ` +
            `that of ${leader.name} is ${leader.server.databaseEncoding}`,
          `A character that ${databaseEncoding} does not have stops this follower; use UTF8.`,
        ),
      );
    }
    return findings;
  });
}

/** The tables as they stand on the leader: what keeps them from being replicated. */
export function judgeLeaderTables(
  leader: NodeFacts,
  patterns: readonly string[],
  keyless: KeylessTables = 'refuse',
): Finding[] {
  const tables = leader.matchedTables;
  if (tables.length === 0) {
    return [
      warningFinding(
        'NO_TABLES',
        nodeObject(leader.name),
        `no table of node ${leader.name} matches ${patterns.join(', ')}`,
        'Create the tables on every node, or correct tables in understudy.yaml.',
      ),
    ];
  }
  return tables.flatMap((table) => {
    if (table.persistence === 'permanent' && !isInStream(leader, table)) {
      return [notInStream(leader, table)];
    }
    return judgeTable(leader, table, keyless);
  });
}

/** Before init every table that is matched will be. A partition joins with its first row. */
function isInStream({ streamed }: NodeFacts, table: TableShape): boolean {
  return streamed === null || table.isPartition || streamed.has(table.oid);
}

function notInStream(leader: NodeFacts, table: TableShape): Finding {
  const name = displayName(table);
  return warningFinding(
    'NOT_IN_STREAM',
    name,
    `${name} was made on ${leader.name} after init: its rows are not replicated`,
    'Leave it out of tables, or take it in: destroy the cluster and init it again.',
  );
}

function judgeTable(leader: NodeFacts, table: TableShape, keyless: KeylessTables): Finding[] {
  return [
    ...judgeAppended(table, keyless),
    ...problemsOf(table, keyless).map(({ message, hint }) =>
      errorFinding('TABLE_UNSUPPORTED', displayName(table), message, hint),
    ),
    ...judgeStorage(leader, table),
  ];
}

/** Partitions are as their root. */
function judgeAppended(table: TableShape, keyless: KeylessTables): Finding[] {
  const isAppended = table.persistence === 'permanent' && isAppendOnly(table, keyless);
  if (!isAppended || table.isPartition) return [];
  const name = displayName(table);
  const [problem] = problemsOf(table);
  const message = `${name} has no identity: rows can be added to it, not changed or deleted`;
  return [warningFinding('APPEND_ONLY', name, message, `Better: ${problem?.hint ?? ''}`)];
}

function judgeStorage(leader: NodeFacts, table: TableShape): Finding[] {
  const name = displayName(table);
  if (table.persistence === 'unlogged') {
    const message = `${name} is unlogged on ${leader.name}: its rows are not replicated`;
    const hint = `${alter(table)} SET LOGGED; on every node, or leave it out of tables.`;
    return [warningFinding('TABLE_UNLOGGED', name, message, hint)];
  }
  return [];
}

function alter(table: TableShape): string {
  return `ALTER TABLE ${qualifiedName(table.schema, table.name)}`;
}

/** Whether a follower has the leader's tables, and what on them would come in the applier's way. */
export function judgeFollowerTables(
  leader: NodeFacts,
  follower: NodeFacts,
  keyless: KeylessTables = 'refuse',
): Finding[] {
  // What is wrong with a table on the leader is said there.
  const wanted = leader.matchedTables.filter(
    (table) =>
      table.persistence === 'permanent' &&
      (table.identityAttnums !== null || isAppendOnly(table, keyless)) &&
      isInStream(leader, table),
  );
  const own = new Map(follower.allTables.map((table) => [displayName(table), table]));
  const missing = wanted.filter((table) => !own.has(displayName(table)));
  const findings = missing.length === 0 ? [] : [missingTables(leader, follower, missing)];
  for (const table of wanted) {
    const copy = own.get(displayName(table));
    if (copy !== undefined) findings.push(...judgeCopy(table, copy, follower.name, keyless));
  }
  return [...findings, ...judgeTypes(leader, follower, wanted), ...judgeTriggers(wanted, follower)];
}

function missingTables(
  leader: NodeFacts,
  follower: NodeFacts,
  missing: readonly TableShape[],
): Finding {
  const names = missing.map(displayName);
  const what = names.length === 1 ? `the table ${names[0]}` : `tables: ${enumerate(names)}`;
  return errorFinding(
    'SCHEMA_DIFFERS',
    nodeObject(follower.name),
    `node ${follower.name} lacks ${what}`,
    'Create them there, empty, with their indexes: pg_dump --schema-only ' +
      `${missing
        .map((table) => `-t '${dumpPattern(table)}'`)
        .slice(0, 3)
        .join(' ')}` +
      `${missing.length > 3 ? ' …' : ''} of ${leader.name} | psql of ${follower.name}.`,
  );
}

/** Names in pg_dump's patterns are quoted as in SQL. */
function dumpPattern(table: TableShape): string {
  const plain = /^[a-z_][a-z0-9_]*$/;
  return [table.schema, table.name]
    .map((name) => (plain.test(name) ? name : quoteIdentifier(name)))
    .join('.');
}

function judgeCopy(
  table: TableShape,
  copy: TableShape,
  node: string,
  keyless: KeylessTables,
): Finding[] {
  const name = displayName(table);
  const differs = (what: string, hint: string): Finding =>
    errorFinding('SCHEMA_DIFFERS', `${nodeObject(node)}: ${name}`, what, hint);
  if (copy.kind !== table.kind) {
    const message = `${name} is ${copy.kind} on node ${node} and ${table.kind} on the leader`;
    return [differs(message, `Make the table on ${node} as it is on the leader.`)];
  }
  if (copy.persistence !== 'permanent') {
    const message = `${name} is ${copy.persistence} on node ${node}: a crash there empties it`;
    return [differs(message, `On ${node}: ${alter(table)} SET LOGGED;`)];
  }
  const columns = giveColumnIds(table.columns, new Set());
  const shape = shapeOf(table, { relation: name, columns }, keyless);
  const difference = compareWithTable(shape, copy);
  if (difference !== null) {
    const message = `node ${node} has another table than the leader: ${difference}`;
    return [differs(message, `On ${node}: ${alter(table)} … until the two are equal.`)];
  }
  return judgeNullability(table, copy, node);
}

function judgeNullability(table: TableShape, copy: TableShape, node: string): Finding[] {
  const own = new Map(copy.columns.map((column) => [column.name, column]));
  const stricter = table.columns
    .filter((column) => !column.notNull && own.get(column.name)?.notNull === true)
    .map((column) => column.name);
  if (stricter.length === 0) return [];
  const drops = stricter.map((column) => `ALTER COLUMN ${quoteIdentifier(column)} DROP NOT NULL`);
  return [
    warningFinding(
      'NOT_NULL_DIFFERS',
      `${nodeObject(node)}: ${displayName(table)}`,
      `${displayName(table)} is NOT NULL on node ${node} only: ${enumerate(stricter)}`,
      `A null from the leader stops it. On ${node}: ${alter(table)} ${drops.join(', ')};`,
    ),
  ];
}

/** Rows arrive as the leader's triggers left them, so a follower switches such a trigger off. */
function judgeTriggers(wanted: readonly TableShape[], follower: NodeFacts): Finding[] {
  const names = new Map(wanted.map((table) => [displayName(table), table]));
  return follower.database.firingTriggers.flatMap(({ table: name, trigger }) => {
    const table = names.get(name);
    if (table === undefined) return [];
    return [
      warningFinding(
        'TRIGGER_HELD',
        `${nodeObject(follower.name)}: ${name}`,
        `the trigger ${trigger} on ${name} would fire for replicated rows on node ` +
          `${follower.name}: it is disabled there while the node follows`,
        `To be rid of this: ${alter(table)} ENABLE TRIGGER ${quoteIdentifier(trigger)};`,
      ),
    ];
  });
}
