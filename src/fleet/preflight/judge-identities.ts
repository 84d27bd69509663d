/**
 * Judges tables whose rows no usable replica identity identifies: what is wrong with each, and the
 * ways out, natural keys first. Takes the facts of the leader and of its followers; gives one
 * finding for each table, with the statements for every node that has the table. Pure.
 */
import {
  aloneTable,
  type IdentityWay,
  identityWays,
  waysBelow,
} from '../../catalog/identity-ways.ts';
import {
  displayName,
  isAppendOnly,
  type KeylessTables,
  type TableShape,
} from '../../catalog/table.ts';
import { problemsOf, type TableProblem } from '../../catalog/table-problems.ts';
import { errorFinding, type Finding, type RemedyStatement, warningFinding } from './finding.ts';
import type { NodeFacts } from './read-node.ts';

/** By the OID of the table; only tables without a usable identity. */
type IdentityPlan = ReadonlyMap<number, readonly IdentityWay[]>;

/** The tables above go first: what they get, partitions and children get too. */
export function planIdentities({ allTables, keys }: NodeFacts): IdentityPlan {
  const byOid = new Map(allTables.map((table) => [table.oid, table]));
  const plan = new Map<number, IdentityWay[]>();
  const visit = (table: TableShape): void => {
    const facts = keys.get(table.oid) ?? aloneTable;
    if (plan.has(table.oid) || problemsOf(table).length === 0) return;
    plan.set(table.oid, []);
    const parents = facts.tree.parents.flatMap((oid) => byOid.get(oid) ?? []);
    parents.forEach(visit);
    const [above] = parents.flatMap(({ oid }) => plan.get(oid)?.[0] ?? []);
    plan.set(table.oid, waysBelow(table, facts, above));
  };
  allTables.forEach(visit);
  return plan;
}

const instead = 'Or replicate inserts alone (keyless: append), or leave it out of tables.';

/** A partition that is only appended to is named by its root. */
export function judgeIdentity(
  table: TableShape,
  keyless: KeylessTables,
  leader: NodeFacts,
  plan: IdentityPlan,
  followers: readonly NodeFacts[],
): Finding[] {
  const ways = plan.get(table.oid) ?? [];
  const [problem] = problemsOf(table, 'refuse', ways);
  if (problem === undefined) return [];
  const name = displayName(table);
  const all = [
    ...statementsOf(leader.name, ways),
    ...followers.flatMap((follower) => onFollower(follower, table, ways[0])),
  ];
  if (!isAppendOnly(table, keyless)) {
    const group = { ...groupOf(problem, ways[0]), item: name };
    const hint = `${problem.hint} ${instead}`;
    return [errorFinding('TABLE_UNSUPPORTED', name, problem.message, hint, { sql: all, group })];
  }
  if (table.isPartition) return [];
  const sql = all.map((one) => {
    return { ...one, caution: one.caution ?? 'for updates and deletes of its rows' };
  });
  const cause = 'tables have no identity: rows can be added to them, not changed or deleted';
  const group = { cause, remedy: `Better: ${remedyOf(ways[0])} ${script}`, item: name };
  const message = `${name} has no identity: rows can be added to it, not changed or deleted`;
  return [warningFinding('APPEND_ONLY', name, message, `Better: ${problem.hint}`, { sql, group })];
}

/** With the other ways for the person who reads the script. */
function statementsOf(node: string, ways: readonly IdentityWay[]): RemedyStatement[] {
  const [first, ...others] = ways;
  if (first === undefined) return [];
  return [
    ...first.statements.map((statement) => ({ node, statement, caution: null })),
    ...others
      .slice(0, 2)
      .flatMap(({ statements, note }) =>
        statements.map((statement) => ({ node, statement, caution: `instead: ${note}` })),
      ),
  ];
}

/** The same identity on a follower that has the table, and has it without one. */
function onFollower(
  follower: NodeFacts,
  table: TableShape,
  way: IdentityWay | undefined,
): RemedyStatement[] {
  if (way === undefined) return [];
  const copy = follower.allTables.find(({ schema, name }) => {
    return schema === table.schema && name === table.name;
  });
  return copy === undefined ? [] : copyStatements(follower, copy, way.identity);
}

/** Statements that give a follower's table that identity; none where it needs more than that. */
export function copyStatements(
  follower: NodeFacts,
  copy: TableShape,
  identity: readonly string[],
): RemedyStatement[] {
  if (problemsOf(copy).length === 0) return [];
  const wanted = [...identity].sort().join('\0');
  const facts = follower.keys.get(copy.oid) ?? aloneTable;
  const columns = new Set(copy.columns.map(({ name }) => name));
  const isThere = identity.every((column) => columns.has(column));
  const ways = [
    ...(planIdentities(follower).get(copy.oid) ?? []),
    ...(isThere ? identityWays(copy, { ...facts, uniqueColumns: [identity] }) : []),
  ];
  const way = ways.find((one) => [...one.identity].sort().join('\0') === wanted);
  return way === undefined ? [] : statementsOf(follower.name, [way]);
}

const causes: Readonly<Record<TableProblem['code'], string>> = {
  NO_IDENTITY: 'tables have no replica identity: published, their updates and deletes would fail',
  IDENTITY_NOTHING:
    'tables have REPLICA IDENTITY NOTHING: their updates and deletes identify no row',
  FULL_WITHOUT_PRIMARY_KEY:
    'tables have REPLICA IDENTITY FULL and no primary key that identifies their rows',
  DEFERRABLE_IDENTITY: 'tables have an identity that is deferrable and cannot be used',
  GENERATED_IDENTITY: 'tables have a generated column in their identity',
};

const remedies: Readonly<Record<IdentityWay['kind'], string>> = {
  restore: 'Each has a primary key: REPLICA IDENTITY DEFAULT.',
  index: 'Each has a unique index over NOT NULL columns, which can be the identity.',
  'not null':
    'Each has a unique index, which can be the identity once its columns are NOT NULL (reads the ' +
    'table under ACCESS EXCLUSIVE).',
  'unique rows': 'In each there are columns that no two rows share: ADD PRIMARY KEY.',
  'add column':
    'None has a unique index that can be the identity: ADD COLUMN … PRIMARY KEY. `understudy ' +
    'check --find-keys` searches their rows for columns that are unique.',
  above: 'They get their identity with the table above them.',
};

const script = '`understudy check --sql` writes the statements.';

function remedyOf(way: IdentityWay | undefined): string {
  return way === undefined ? 'No statement gives them a key as they are.' : remedies[way.kind];
}

function groupOf(
  problem: TableProblem,
  way: IdentityWay | undefined,
): { cause: string; remedy: string } {
  const end = 'Or replicate inserts alone (keyless: append), or leave them out of tables.';
  return { cause: causes[problem.code], remedy: `${remedyOf(way)} ${script} ${end}` };
}
