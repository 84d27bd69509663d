/**
 * The files that are published beside the code: package.json and schemas/. A path below the root
 * of the package comes in, its URL goes out. The code that asks may be a source file in any folder
 * of src/, or a part of a bundle in dist/, so the root is looked for from there upwards.
 */
import { existsSync, readFileSync } from 'node:fs';

/** The nearest folder above this code that has a package.json. */
function packageRoot(): URL {
  const here = new URL('./', import.meta.url);
  for (let folder = here; ; folder = new URL('../', folder)) {
    if (existsSync(new URL('package.json', folder))) return folder;
    if (folder.pathname === '/') throw new Error(`no package.json above ${here.pathname}`);
  }
}

const root = packageRoot();

/** `path` without a leading slash, such as schemas/point.avsc. */
export function packageFile(path: string): URL {
  return new URL(path, root);
}

/** Of this package, such as 0.1.0. */
export function packageVersion(): string {
  const text = readFileSync(packageFile('package.json'), 'utf8');
  return (JSON.parse(text) as { readonly version: string }).version;
}
