/**
 * The shell command that creates tables of one node on another, as a hint names it. `<url of a>` is
 * the URL of node a in understudy.yaml. It passes the write guard of a node that follows, and does
 * no harm on one that is no node yet. Pure.
 */
import { quoteIdentifier } from '../../catalog/postgres-session.ts';
import type { TableShape } from '../../catalog/table.ts';
import { guardBypass } from '../../errors/row.ts';

/** A command line of more tables is no remedy that a person reads. */
export const copiedMax = 10;

export function copyTables(tables: readonly TableShape[], from: string, to: string): string {
  const patterns = tables.map((table) => {
    return `-t '${dumpPattern(table).replaceAll("'", "'\\''")}'`;
  });
  return (
    `\`pg_dump --schema-only --no-publications ${patterns.join(' ')} <url of ${from}> | ` +
    `${guardBypass} psql -v ON_ERROR_STOP=1 <url of ${to}>\``
  );
}

/** Names in pg_dump's patterns are quoted as in SQL. */
function dumpPattern(table: TableShape): string {
  const plain = /^[a-z_][a-z0-9_]*$/;
  return [table.schema, table.name]
    .map((name) => (plain.test(name) ? name : quoteIdentifier(name)))
    .join('.');
}
