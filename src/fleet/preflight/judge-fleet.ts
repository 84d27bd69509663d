/**
 * Judges the nodes that answered against each other (the same database, the same server, other
 * locales), and the leader's tables. One finding per cause. Pure.
 */

import { qualifiedName, quoteIdentifier } from '../../catalog/postgres-session.ts';
import { compilePattern } from '../../catalog/read-catalog.ts';
import {
  alterTable,
  displayName,
  isAppendOnly,
  type KeylessTables,
  problemsOf,
  type TableShape,
} from '../../catalog/table.ts';
import { publicationName } from '../../topic/records/layout.ts';
import { enumerate, errorFinding, type Finding, warningFinding } from './finding.ts';
import { nodeObject } from './judge-server.ts';
import type { NodeFacts } from './read-node.ts';

/** Each pair of nodes once. */
export function judgeServers(nodes: readonly NodeFacts[]): Finding[] {
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
      'Create one of them with initdb, so that the two can be distinguished.',
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

/** Text sorts and compares by the locale: a follower with another one answers differently. */
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
          'Queries that sort text answer differently there: create it with the same locale.',
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

/**
 * Patterns of `tables` that match no table of the leader: a misspelt one leaves its tables out of
 * the stream. Where the cluster is about to be created (`isCreated` false), that is an error.
 */
export function judgePatterns(
  leader: NodeFacts,
  patterns: readonly string[],
  isCreated: boolean,
): Finding[] {
  const unmatched = patterns.filter(
    (pattern) => !leader.matchedTables.some(compilePattern(pattern)),
  );
  const [first] = unmatched;
  if (first === undefined) return [];
  const object = nodeObject(leader.name);
  const message = `no table of node ${leader.name} matches ${enumerate(unmatched)}`;
  const hint =
    'Correct tables in understudy.yaml, or the URL of the node; or create the tables: on every ' +
    'node, or on the leader before init.';
  if (!isCreated) return [errorFinding('PREREQUISITE', object, message, hint)];
  const code = leader.matchedTables.length === 0 ? 'NO_TABLES' : 'PATTERN_UNMATCHED';
  return [warningFinding(code, object, message, hint)];
}

/** The tables of the leader: what prevents their replication. */
export function judgeLeaderTables(leader: NodeFacts, keyless: KeylessTables = 'refuse'): Finding[] {
  return leader.matchedTables.flatMap((table) => {
    if (table.persistence === 'permanent' && !isInStream(leader, table)) {
      return [notInStream(leader, table)];
    }
    return judgeTable(leader, table, keyless);
  });
}

/** Before init every matched table counts. A partition joins the stream with its first row. */
export function isInStream({ streamed }: NodeFacts, table: TableShape): boolean {
  return streamed === null || table.isPartition || streamed.has(table.oid);
}

function notInStream(leader: NodeFacts, table: TableShape): Finding {
  const name = displayName(table);
  const publication = publicationName(leader.identity?.cluster ?? '');
  return warningFinding(
    'NOT_IN_STREAM',
    name,
    `${name} was created on ${leader.name} after init: its rows are not replicated`,
    'Leave it out of tables, or create it on every follower too, then on the leader: ALTER ' +
      `PUBLICATION ${quoteIdentifier(publication)} ADD TABLE ONLY ` +
      `${qualifiedName(table.schema, table.name)};`,
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

/** A partition has the identity of its root. */
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
    const hint = `${alterTable(table)} SET LOGGED; on every node, or leave it out of tables.`;
    return [warningFinding('TABLE_UNLOGGED', name, message, hint)];
  }
  return [];
}
