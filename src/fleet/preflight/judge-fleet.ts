/**
 * Judges the nodes that answered against each other (the same database, the same server, other
 * locales), and the leader's tables. One finding per cause. Pure.
 */

import { qualifiedName, quoteIdentifier } from '../../catalog/postgres-session.ts';
import { compilePattern } from '../../catalog/read-catalog.ts';
import {
  alterTable,
  displayName,
  type KeylessTables,
  type TableShape,
} from '../../catalog/table.ts';
import { publicationName } from '../../topic/records/layout.ts';
import { copyTables } from './copy-tables.ts';
import { enumerate, errorFinding, type Finding, warningFinding } from './finding.ts';
import { judgeIdentity, planIdentities } from './judge-identities.ts';
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
export function judgeLeaderTables(
  leader: NodeFacts,
  keyless: KeylessTables = 'refuse',
  followers: readonly NodeFacts[] = [],
): Finding[] {
  const plan = planIdentities(leader);
  return leader.matchedTables.flatMap((table) => {
    const identity = judgeIdentity(table, keyless, leader, plan, followers);
    if (table.persistence === 'permanent' && !isInStream(leader, table)) {
      return [notInStream(leader, table, identity)];
    }
    return [...identity, ...judgeStorage(leader, table)];
  });
}

/** Before init every matched table counts. A partition joins the stream with its first row. */
export function isInStream({ streamed }: NodeFacts, table: TableShape): boolean {
  return streamed === null || table.isPartition || streamed.has(table.oid);
}

/** A table without an identity stays outside, and would refuse its updates once published. */
function notInStream(leader: NodeFacts, table: TableShape, identity: readonly Finding[]): Finding {
  const name = displayName(table);
  const publication = quoteIdentifier(publicationName(leader.identity?.cluster ?? ''));
  const statement =
    `ALTER PUBLICATION ${publication} ADD TABLE ONLY ` +
    `${qualifiedName(table.schema, table.name)};`;
  // Published without a key, it would refuse every UPDATE and DELETE of its applications.
  const unusable = identity.find(({ severity }) => severity === 'error');
  const ways = unusable?.sql.filter(({ node, caution }) => node === leader.name && !caution) ?? [];
  const keys = ways.map((one) => `\`${one.statement}\` `).join('');
  const key =
    unusable === undefined
      ? ''
      : `It has no usable identity: give it one first, on every node: ${keys}Then `;
  const leave = unusable === undefined ? 'Leave it out of tables' : 'leave it out of tables';
  const caution = 'once every follower has the table';
  return warningFinding(
    'NOT_IN_STREAM',
    name,
    `${name} was created on ${leader.name} after init: its rows are not replicated`,
    `${key}${leave}, or create it on each follower that lacks it ` +
      `(${copyTables([table], leader.name, 'the follower')}), and then on the leader: ` +
      `\`${statement}\``,
    {
      sql: [...identity.flatMap(({ sql }) => sql), { node: leader.name, statement, caution }],
      group: {
        cause: `tables were created on ${leader.name} after init: their rows are not replicated`,
        remedy:
          'Leave them out of tables, or create them on every follower too, then on the leader: ' +
          'ALTER PUBLICATION … ADD TABLE ONLY … (`understudy check --sql` writes them).',
        item: name,
      },
    },
  );
}

function judgeStorage(leader: NodeFacts, table: TableShape): Finding[] {
  if (table.persistence !== 'unlogged') return [];
  const name = displayName(table);
  const message = `${name} is unlogged on ${leader.name}: its rows are not replicated`;
  const statement = `${alterTable(table)} SET LOGGED;`;
  const hint = `\`${statement}\` on every node, or leave it out of tables.`;
  return [
    warningFinding('TABLE_UNLOGGED', name, message, hint, {
      sql: [{ node: leader.name, statement, caution: rewritesAll }],
      group: {
        cause: `tables are unlogged on ${leader.name}: their rows are not replicated`,
        remedy: 'SET LOGGED on every node, or leave them out of tables.',
        item: name,
      },
    }),
  ];
}

const rewritesAll = 'rewrites the table under ACCESS EXCLUSIVE, and writes all its rows to the WAL';
