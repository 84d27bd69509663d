/**
 * A module of src with a rule struck out. Flows in: the file, and what to strike (a rule that a
 * comment `// rule: NAME` marks, and what replaces it); flows out: the module as it would be
 * without the rule, next to the real ones. A model that does not tell the two apart proves nothing.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { type Strike, strike } from '../../scripts/mutations/struck-rule.ts';

const root = new URL('../../', import.meta.url);

/** Several strikes are made one after the other. */
export async function leftOut<Module>(
  file: string,
  ...strikes: readonly Strike[]
): Promise<Module> {
  const source = new URL(file, root);
  const struck = strikes.reduce(
    (text, one) => strike({ file, text }, one),
    readFileSync(source, 'utf8'),
  );
  const text = struck.replace(/(?<=from ')\.{1,2}\/[^']+/g, (path) => new URL(path, source).href);
  const folder = mkdtempSync(join(tmpdir(), 'understudy-left-out-'));
  try {
    const copy = join(folder, basename(file).replace(/\.ts$/, '.mts'));
    writeFileSync(copy, text);
    return (await import(pathToFileURL(copy).href)) as Module;
  } finally {
    rmSync(folder, { recursive: true });
  }
}
