/**
 * Compares the types of the catalog on two nodes. Their values travel as text, and a follower
 * parses that text by its own type: Postgres refuses an unknown label when the row comes, but two
 * attributes in another order would be exchanged silently. One finding per type that differs. Pure
 * except for its SQL.
 */
import { displayName, type TableShape } from '../../catalog/table.ts';
import { errorFinding, type Finding } from './finding.ts';

/** The parts of a type that determine the text of its values. */
interface TypeFacts {
  readonly kind: 'enum' | 'composite' | 'domain' | 'range';
  /** Labels in order, `name type` of attributes in order, or the one type below it. */
  readonly parts: readonly string[];
  /** The types of attributes, or the one below it; none for an enum. */
  readonly types: readonly string[];
}

/** By name, as format_type prints it under an empty search_path. */
export type TypesByName = Readonly<Record<string, TypeFacts>>;

/** One value of json: TypesByName of a database. Types of extensions are left out. */
export const typesOfDatabase = `
  SELECT coalesce(json_object_agg(format_type(t.oid, NULL), CASE t.typtype
    WHEN 'e' THEN json_build_object('kind', 'enum', 'types', '{}'::text[], 'parts', (
      SELECT coalesce(json_agg(e.enumlabel ORDER BY e.enumsortorder), '[]')
      FROM pg_enum e WHERE e.enumtypid = t.oid))
    WHEN 'c' THEN (
      SELECT json_build_object('kind', 'composite',
        'types', coalesce(json_agg(p.type ORDER BY p.attnum), '[]'),
        'parts', coalesce(json_agg(p.attname || ' ' || p.type ORDER BY p.attnum), '[]'))
      FROM (
        SELECT a.attnum, a.attname, format_type(a.atttypid, a.atttypmod) AS type
        FROM pg_attribute a
        WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) AS p)
    WHEN 'd' THEN json_build_object('kind', 'domain',
      'types', ARRAY[format_type(t.typbasetype, t.typtypmod)],
      'parts', ARRAY[format_type(t.typbasetype, t.typtypmod)])
    ELSE (
      SELECT json_build_object('kind', 'range',
        'types', ARRAY[format_type(r.rngsubtype, NULL)],
        'parts', ARRAY[format_type(r.rngsubtype, NULL)])
      FROM pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid))
    END), '{}')
  FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
  WHERE t.typtype IN ('e', 'c', 'd', 'r', 'm')
    AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'understudy')
    AND (t.typtype <> 'c' OR EXISTS (
      SELECT FROM pg_class c WHERE c.oid = t.typrelid AND (c.relkind = 'c' OR EXISTS (
        -- The rows of a table are a type too, which another column may have.
        SELECT FROM pg_depend d
        WHERE d.refclassid = 'pg_type'::regclass AND d.refobjid IN (t.oid, t.typarray)
          AND d.deptype = 'n'))))
    AND NOT EXISTS (
      SELECT FROM pg_depend d
      WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e')`;

/** For the types of the tables' columns, and the types within those. */
export function judgeTypes(
  leader: { readonly types: TypesByName },
  follower: { readonly name: string; readonly types: TypesByName },
  tables: readonly TableShape[],
): Finding[] {
  const users = new Map<string, string>();
  for (const table of tables) {
    const columns = table.columns.filter(({ generated }) => generated === 'no');
    for (const { type } of columns) collect(leader.types, type, displayName(table), users);
  }
  return [...users].flatMap(([name, table]) => {
    const difference = differenceOf(leader.types[name], follower.types[name]);
    if (difference === null) return [];
    return [
      errorFinding(
        'SCHEMA_DIFFERS',
        `node ${follower.name}: ${name}`,
        `the type ${name}, which ${table} has, is another one on node ${follower.name}: ` +
          difference,
        `Change the type on ${follower.name} to that of the leader before any row arrives.`,
        {
          group: {
            cause: `types are others on node ${follower.name} than on the leader`,
            remedy: 'Change them there to those of the leader before any row arrives.',
            item: `${name} (in ${table}): ${difference}`,
          },
        },
      ),
    ];
  });
}

/** Collects each type of the catalog with the first table that has it. */
function collect(
  types: TypesByName,
  printed: string,
  table: string,
  users: Map<string, string>,
): void {
  const name = printed.replace(/(\[\])+$/, '');
  const facts = types[name];
  if (facts === undefined || users.has(name)) return;
  users.set(name, table);
  for (const type of facts.types) collect(types, type, table, users);
}

function differenceOf(wanted: TypeFacts | undefined, own: TypeFacts | undefined): string | null {
  // A missing type is reported with the table of its column.
  if (wanted === undefined || own === undefined) return null;
  if (wanted.kind !== own.kind) return `it is of the kind ${own.kind} instead of ${wanted.kind}`;
  if (wanted.kind === 'enum') {
    const missing = wanted.parts.filter((label) => !own.parts.includes(label));
    return missing.length === 0 ? null : `it lacks the label ${JSON.stringify(missing[0])}`;
  }
  if (wanted.parts.join('\0') === own.parts.join('\0')) return null;
  return `it is (${own.parts.join(', ')}) instead of (${wanted.parts.join(', ')})`;
}
