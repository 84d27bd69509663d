/**
 * Judges a follower's tables against the leader's: differences that would reject a row, that would
 * silently change it, or that would interfere with the applier. One finding per cause. Pure.
 */
import { qualifiedName, quoteIdentifier } from '../../catalog/postgres-session.ts';
import {
  alterationOf,
  assignColumnIds,
  compareWithTable,
  shapeOf,
} from '../../catalog/relation-ids.ts';
import {
  alterTable,
  displayName,
  identityIndexOf,
  isAppendOnly,
  type KeylessTables,
  type TableShape,
} from '../../catalog/table.ts';
import { copiedMax, copyTables } from './copy-tables.ts';
import {
  enumerate,
  errorFinding,
  type Finding,
  type RemedyStatement,
  warningFinding,
} from './finding.ts';
import { isInStream } from './judge-fleet.ts';
import { copyStatements } from './judge-identities.ts';
import { nodeObject } from './judge-server.ts';
import { judgeTypes } from './judge-types.ts';
import type { NodeFacts } from './read-node.ts';

/**
 * The findings about a follower's tables. Where `init`, or the first start of a new node, creates
 * tables (`createsTables`), a follower that has none of them gets them from it.
 */
export function judgeFollowerTables(
  leader: NodeFacts,
  follower: NodeFacts,
  keyless: KeylessTables = 'refuse',
  createsTables = false,
): Finding[] {
  // Problems of a table on the leader are findings of the leader.
  const wanted = leader.matchedTables.filter(
    (table) =>
      table.persistence === 'permanent' &&
      (table.identityAttnums !== null || isAppendOnly(table, keyless)) &&
      isInStream(leader, table),
  );
  // As SQL names them: "a.b"."c" and "a"."b.c" are two.
  const nameOf = ({ schema, name }: TableShape): string => qualifiedName(schema, name);
  const own = new Map(follower.allTables.map((table) => [nameOf(table), table]));
  const missing = wanted.filter((table) => !own.has(nameOf(table)));
  if (createsTables && missing.length === wanted.length) return [];
  const findings = missing.length === 0 ? [] : [missingTables(leader, follower, missing)];
  for (const table of wanted) {
    const copy = own.get(nameOf(table));
    if (copy === undefined) continue;
    findings.push(...judgeCopy(table, copy, follower, keyless));
    findings.push(...judgeParent(leader, table, follower, copy));
    findings.push(...judgeGenerated(leader, table, follower, copy));
  }
  findings.push(...judgeTypes(leader, follower, wanted), ...judgeTriggers(wanted, follower));
  return follower.identity === null ? findings : findings.map(underGuard);
}

/** A node that follows refuses schema changes of sessions that are not its agent's. */
function underGuard(finding: Finding): Finding {
  const sql = finding.sql.map((one) => {
    return { ...one, caution: one.caution ?? 'the write guard refuses it while the node follows' };
  });
  return { ...finding, sql };
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
    'Create them there, empty, with their indexes, once the types that they use are there: ' +
      `${copyTables(missing.slice(0, copiedMax), leader.name, follower.name)}` +
      `${missing.length > copiedMax ? ' This command then names the next ones.' : ''}`,
  );
}

function judgeCopy(
  table: TableShape,
  copy: TableShape,
  follower: NodeFacts,
  keyless: KeylessTables,
): Finding[] {
  const name = displayName(table);
  const node = follower.name;
  const differs = (what: string, hint: string, sql: readonly RemedyStatement[] = []): Finding => {
    const cause = `tables of node ${node} are not as on the leader`;
    const group = { cause, remedy: everyCopy(node), item: what };
    return errorFinding('SCHEMA_DIFFERS', `${nodeObject(node)}: ${name}`, what, hint, {
      ...{ sql, group },
    });
  };
  if (copy.kind !== table.kind) {
    const message = `${name} is ${copy.kind} on node ${node} and ${table.kind} on the leader`;
    return [differs(message, `Create the table on ${node} as it is on the leader.`)];
  }
  if (copy.persistence !== 'permanent') {
    const message = `${name} is ${copy.persistence} on node ${node}: a crash there empties it`;
    const statement = `${alterTable(table)} SET LOGGED;`;
    const sql = [{ node, statement, caution: null }];
    return [differs(message, `On ${node}: \`${statement}\``, sql)];
  }
  const columns = assignColumnIds(table.columns, new Set());
  const shape = shapeOf(table, { relation: name, columns }, keyless);
  const difference = compareWithTable(shape, copy);
  if (difference !== null) {
    const message = `node ${node} has another table than the leader: ${difference}`;
    const names = new Map(table.columns.map((column) => [column.attnum, column.name]));
    const identity = (table.identityAttnums ?? []).map((attnum) => names.get(attnum) ?? '');
    const keyed = copyStatements(follower, copy, identity);
    const alteration = keyed.length > 0 ? null : alterationOf(shape, copy);
    const sql =
      alteration === null ? keyed : [{ node, statement: `${alteration};`, caution: alters }];
    return [differs(message, `On ${node}: ${alterTable(table)} … until the two are equal.`, sql)];
  }
  const equality = equalityOf(table);
  // rule: same-equality-of-keys
  if (equality !== equalityOf(copy)) {
    const message =
      `the identity of ${name} compares its columns by ${equalityOf(copy)} on node ${node} and ` +
      `by ${equality} on the leader: rows that are two here may be one there`;
    return [differs(message, `Make its index and the collation of its columns equal on ${node}.`)];
  }
  return judgeNullability(table, copy, node);
}

const alters = 'makes the columns those of the leader; a column that is dropped loses its values';

function everyCopy(node: string): string {
  return `ALTER TABLE … on ${node} until each is as on the leader (check --sql ${node}).`;
}

/** Its rows are equal, and are rows of another table there. */
function judgeParent(
  leader: NodeFacts,
  table: TableShape,
  follower: NodeFacts,
  copy: TableShape,
): Finding[] {
  const parentOf = ({ allTables }: NodeFacts, { isPartition, parentOid }: TableShape) => {
    const parent = isPartition ? allTables.find(({ oid }) => oid === parentOid) : undefined;
    return parent === undefined ? 'no partition' : `a partition of ${displayName(parent)}`;
  };
  const [there, here] = [parentOf(follower, copy), parentOf(leader, table)];
  if (there === here) return [];
  const name = displayName(table);
  const message = `${name} is ${there} on node ${follower.name} and ${here} on the leader`;
  const hint = `Attach or detach it on ${follower.name} as on the leader.`;
  const object = `${nodeObject(follower.name)}: ${name}`;
  const group = {
    cause: `tables are partitions of others on node ${follower.name} than on the leader`,
    remedy: `Attach or detach them on ${follower.name} as on the leader.`,
    item: message,
  };
  return [errorFinding('SCHEMA_DIFFERS', object, message, hint, { group })];
}

/** By column name, because the columns may be in another order. */
function equalityOf({ replicaIdentity, uniqueIndexes, columns }: TableShape): string {
  const index = identityIndexOf(replicaIdentity, uniqueIndexes);
  const names = new Map(columns.map(({ attnum, name }) => [attnum, name]));
  const parts = index?.attnums.map((attnum, at) => {
    return `${names.get(attnum)} (${index.equality[at]})`;
  });
  return (parts ?? []).sort().join(', ');
}

function judgeNullability(table: TableShape, copy: TableShape, node: string): Finding[] {
  const own = new Map(copy.columns.map((column) => [column.name, column]));
  const name = displayName(table);
  const stricter = table.columns
    .filter((column) => !column.notNull && own.get(column.name)?.notNull === true)
    .map((column) => column.name);
  if (stricter.length === 0) return [];
  const drops = stricter.map((column) => `ALTER COLUMN ${quoteIdentifier(column)} DROP NOT NULL`);
  const statement = `${alterTable(table)} ${drops.join(', ')};`;
  return [
    warningFinding(
      'NOT_NULL_DIFFERS',
      `${nodeObject(node)}: ${name}`,
      `${name} is NOT NULL on node ${node} only: ${enumerate(stricter)}`,
      `A null from the leader would stop it. On ${node}: \`${statement}\``,
      {
        sql: [{ node, statement, caution: null }],
        group: {
          cause: `tables have columns that are NOT NULL on node ${node} only`,
          remedy: `A null from the leader would stop it: ${everyCopy(node)}`,
          item: `${name} (${enumerate(stricter)})`,
        },
      },
    ),
  ];
}

/** Each node computes them itself. Two versions may print one expression differently. */
function judgeGenerated(
  leader: NodeFacts,
  table: TableShape,
  follower: NodeFacts,
  copy: TableShape,
): Finding[] {
  const expressionsOf = ({ database }: NodeFacts, { oid }: TableShape): Map<string, string> => {
    const own = database.generated.filter(({ tableOid }) => tableOid === oid);
    return new Map(own.map(({ column, expression }) => [column, expression]));
  };
  const own = expressionsOf(follower, copy);
  const name = displayName(table);
  return [...expressionsOf(leader, table)].flatMap(([column, expression]) => {
    if (own.get(column) === expression) return [];
    const found = own.get(column) ?? 'nothing';
    return [
      warningFinding(
        'GENERATED_DIFFERS',
        `${nodeObject(follower.name)}: ${name}`,
        `the generated column ${column} of ${name} is computed by ${found} on node ` +
          `${follower.name} and by ${expression} on the leader`,
        `If their meaning differs: change the column on ${follower.name} to that of the leader.`,
        {
          group: {
            cause: `generated columns are computed in another way on node ${follower.name}`,
            remedy: 'If their meaning differs: change them there to those of the leader.',
            item: `${name}.${column}`,
          },
        },
      ),
    ];
  });
}

/** Rows arrive as the leader's triggers and rules left them, so a follower disables these. */
function judgeTriggers(wanted: readonly TableShape[], follower: NodeFacts): Finding[] {
  const names = new Map(wanted.map((table) => [displayName(table), table]));
  return follower.database.firingTriggers.flatMap(({ kind, table: name, trigger }) => {
    const table = names.get(name);
    if (table === undefined) return [];
    const enable = `ENABLE ${kind.toUpperCase()} ${quoteIdentifier(trigger)};`;
    const statement = `${alterTable(table)} ${enable}`;
    return [
      warningFinding(
        'TRIGGER_HELD',
        `${nodeObject(follower.name)}: ${name}`,
        `the ${kind} ${trigger} on ${name} would fire for replicated rows on node ` +
          `${follower.name}: it is disabled there while the node follows`,
        `To avoid this: \`${statement}\``,
        {
          sql: [{ node: follower.name, statement, caution: 'it would not fire there' }],
          group: {
            cause:
              `triggers and rules would fire for replicated rows on node ${follower.name}: they ` +
              'are disabled there while the node follows',
            remedy: 'To avoid this: ALTER TABLE … ENABLE TRIGGER or ENABLE RULE each.',
            item: `${trigger} on ${name}`,
          },
        },
      ),
    ];
  });
}
