/**
 * How a session is named in a message: by its pid, its role, its database and what it calls itself.
 * Sessions of agents and commands call themselves `understudy <node> <purpose>`, so that none of
 * them is taken for a foreign one. It takes the alias of a row of pg_stat_activity and gives an
 * expression in SQL.
 */

/**
 * `pid 4711 of app in shop (understudy a init)`, without what is not known; empty where an outer
 * join found no row.
 */
export function sessionText(alias: string): string {
  const parts = [
    `'pid ' || ${alias}.pid`,
    `' of ' || ${alias}.usename`,
    `' in ' || ${alias}.datname`,
    `' (' || nullif(${alias}.application_name, '') || ')'`,
  ];
  // Of its arguments concat leaves out those that are null.
  return `pg_catalog.concat(${parts.join(', ')})`;
}
