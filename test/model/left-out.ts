/**
 * A module of src with one rule struck out. Flows in: the file, the text of the rule and what
 * stands in its place; flows out: the module as it would be without the rule, next to the real
 * ones. A model that does not tell the two apart proves nothing. Text that is gone is an error,
 * never a silent pass: the rule was moved, and the test has to follow it.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { pathToFileURL } from 'node:url';

const root = new URL('../../', import.meta.url);

export async function leftOut<Module>(
  file: string,
  rule: string,
  instead: string,
): Promise<Module> {
  const source = new URL(file, root);
  const parts = readFileSync(source, 'utf8').split(rule);
  if (parts.length !== 2) {
    throw new Error(`${file} holds ${parts.length - 1} times, not once: ${rule}`);
  }
  const text = parts
    .join(instead)
    .replace(/(?<=from ')\.{1,2}\/[^']+/g, (path) => new URL(path, source).href);
  const folder = mkdtempSync(join(tmpdir(), 'understudy-left-out-'));
  try {
    const copy = join(folder, basename(file).replace(/\.ts$/, '.mts'));
    writeFileSync(copy, text);
    return (await import(pathToFileURL(copy).href)) as Module;
  } finally {
    rmSync(folder, { recursive: true });
  }
}
