/**
 * Rules of single statements and names in src/. Every file of the project flows in; one line for
 * each broken rule flows out: an error that is created outside src/errors, an error that is
 * swallowed without a reason, a name that is exported twice or that no other file imports. Pure.
 */
import { exportsOf, importsOf, type SourceFile } from './source-file.ts';

export function judgeText(files: readonly SourceFile[]): readonly string[] {
  const sources = files.filter(({ file }) => file.startsWith('src/'));
  return [
    ...sources.flatMap(swallowedErrors),
    ...exportedTwice(sources),
    ...unusedExports(sources, files),
  ];
}

function linesWith(pattern: RegExp, text: string): readonly number[] {
  return text.split('\n').flatMap((line, at) => (pattern.test(line) ? [at] : []));
}

/** Message, hint and facts of a failure are written once: in the factory of its family. */
export function judgeErrors(files: readonly SourceFile[]): readonly string[] {
  return files
    .filter(({ file }) => file.startsWith('src/') && !file.startsWith('src/errors/'))
    .flatMap(({ file, text }) =>
      linesWith(/\bnew UnderstudyError\(/, text).map((at) => {
        return `${file}:${at + 1} creates an error: call or add a factory of src/errors`;
      }),
    );
}

/** `.catch(() => undefined)` says nothing about where the error is handled; a comment has to. */
function swallowedErrors({ file, text }: SourceFile): readonly string[] {
  const lines = text.split('\n');
  const comment = /\/\/|\*\/\s*$/;
  return linesWith(/\.catch\(\(\) => (undefined|null|\{\s*\})\)/, text)
    .filter((at) => !comment.test(lines[at] ?? '') && !comment.test(lines[at - 1] ?? ''))
    .map((at) => `${file}:${at + 1} swallows an error: a comment has to say where it is handled`);
}

/** Two exports of one name mean two things, and an import shows only the name. */
function exportedTwice(sources: readonly SourceFile[]): readonly string[] {
  const filesOf = new Map<string, string[]>();
  for (const source of sources) {
    for (const name of exportsOf(source)) {
      filesOf.set(name, [...(filesOf.get(name) ?? []), source.file]);
    }
  }
  return [...filesOf]
    .filter(([, files]) => files.length > 1)
    .map(([name, files]) => `${name} is exported by ${files.join(' and ')}: rename one`);
}

function unusedExports(
  sources: readonly SourceFile[],
  files: readonly SourceFile[],
): readonly string[] {
  const used = new Set<string>();
  const usedWhole = new Set<string>();
  for (const { to, names } of files.flatMap(importsOf)) {
    if (names === null) usedWhole.add(to);
    for (const name of names ?? []) used.add(`${to} ${name}`);
  }
  return sources.flatMap((source) => {
    const { file } = source;
    if (usedWhole.has(file)) return [];
    return exportsOf(source)
      .filter((name) => !used.has(`${file} ${name}`))
      .map((name) => `${file} exports ${name}, which no other file imports`);
  });
}
