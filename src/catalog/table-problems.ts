/**
 * The problems that prevent the replication of a table, each with the SQL that solves it: the first
 * of the ways of identity-ways.ts. Takes a table as the catalog has it; gives reasons and remedies.
 * Pure.
 */
import { type IdentityWay, identityWays } from './identity-ways.ts';
import type { TableShape } from './table.ts';
import { displayName, isAppendOnly, type KeylessTables } from './table.ts';

type TableProblemCode =
  | 'NO_IDENTITY'
  | 'IDENTITY_NOTHING'
  | 'FULL_WITHOUT_PRIMARY_KEY'
  | 'DEFERRABLE_IDENTITY'
  | 'GENERATED_IDENTITY';

export interface TableProblem {
  readonly code: TableProblemCode;
  readonly message: string;
  readonly hint: string;
}

/**
 * Why the table cannot be replicated, at most one reason. Unlogged and temporary tables never are:
 * not a problem. The ways to an identity are those of the table alone, unless they are handed in:
 * those of a partition depend on the tables above it.
 */
export function problemsOf(
  table: TableShape,
  keyless: KeylessTables = 'refuse',
  ways: readonly IdentityWay[] | null = null,
): TableProblem[] {
  if (table.persistence !== 'permanent' || isAppendOnly(table, keyless)) return [];
  const hint = hintOf(table, ways);
  if (table.identityAttnums === null) return [missingIdentity(table, hint)];
  const identity = new Set(table.identityAttnums);
  const generated = table.columns.find(
    (column) => identity.has(column.attnum) && column.generated !== 'no',
  );
  if (generated === undefined) return [];
  const name = displayName(table);
  const message = `${name} has the generated column ${generated.name} in its identity`;
  return [{ code: 'GENERATED_IDENTITY', message, hint }];
}

function hintOf(table: TableShape, handedIn: readonly IdentityWay[] | null): string {
  const isInTree = table.isPartition || table.kind === 'partitioned';
  if (handedIn === null && isInTree) return 'What gives it a key: `understudy check --sql`';
  const [first] = handedIn ?? identityWays(table);
  if (first !== undefined) return first.statements.map((one) => `\`${one}\``).join(' ');
  if (table.isPartition) return 'Give the table of which it is a partition a primary key.';
  return (
    'No statement gives it a primary key as it is: its partition key, or its type, has to be ' +
    'changed first.'
  );
}

function missingIdentity(table: TableShape, hint: string): TableProblem {
  const name = displayName(table);
  const wanted = table.uniqueIndexes.find((index) =>
    table.replicaIdentity === 'index' ? index.chosen : index.primary,
  );
  if (table.replicaIdentity === 'nothing') {
    const message = `${name} has REPLICA IDENTITY NOTHING: its updates and deletes identify no row`;
    return { code: 'IDENTITY_NOTHING', message, hint };
  }
  if (wanted !== undefined && !wanted.immediate) {
    const message = `the identity of ${name} is deferrable (${wanted.name}) and cannot be used`;
    return { code: 'DEFERRABLE_IDENTITY', message, hint };
  }
  if (table.replicaIdentity === 'full') {
    const message = `${name} has REPLICA IDENTITY FULL and no primary key that identifies its rows`;
    return { code: 'FULL_WITHOUT_PRIMARY_KEY', message, hint };
  }
  const message = `${name} has no replica identity: published, its updates and deletes would fail`;
  return { code: 'NO_IDENTITY', message, hint };
}
