/**
 * A TypeScript file as the rules of this folder see it: its path and text, the project's own files
 * that it imports, and the names that it exports. Found by patterns, not by a parser: Biome keeps
 * the form of these statements. Pure.
 */
import { dirname, join, normalize } from 'node:path';

/** `file` is relative to the root of the project: `src/cli.ts`. */
export interface SourceFile {
  readonly file: string;
  readonly text: string;
}

export interface SourceImport {
  readonly from: string;
  readonly to: string;
  readonly onlyTypes: boolean;
  /** Null where everything is imported. */
  readonly names: readonly string[] | null;
}

const statement = /^(?:import|export)\s+(type\s+)?(?:([^;'"]*?)\s+from\s+)?'(\.[^']+)'/gms;
const dynamic = /\bimport\('(\.[^']+)'\)/g;

/** Imports, re-exports and dynamic imports of the project's own files. */
export function importsOf({ file: from, text }: SourceFile): readonly SourceImport[] {
  const target = (specifier: string): string => normalize(join(dirname(from), specifier));
  const statements = [...text.matchAll(statement)].map(([, type, clause = '', to = '']) => {
    return { from, to: target(to), onlyTypes: type !== undefined, names: namesIn(clause) };
  });
  const others = [...text.matchAll(dynamic)].map(([, to = '']) => {
    return { from, to: target(to), onlyTypes: false, names: null };
  });
  return [...statements, ...others];
}

/** Of `{ a, type B as C }`: a and B. */
function namesIn(clause: string): readonly string[] | null {
  const [, list] = /^\{([^}]*)\}$/s.exec(clause.trim()) ?? [];
  if (list === undefined) return null;
  const names = list.split(',').map((one) => one.trim().replace(/^type\s+/, ''));
  return names.map((one) => one.replace(/\s+as\s.*/s, '')).filter((one) => one !== '');
}

const exported =
  /^export\s+(?:async\s+|abstract\s+)*(?:function|const|class|interface|type)\s+(\w+)/gm;

export function exportsOf({ text }: SourceFile): readonly string[] {
  return [...new Set([...text.matchAll(exported)].map(([, name = '']) => name))];
}
