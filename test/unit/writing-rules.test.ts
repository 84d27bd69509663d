/**
 * Enforces the writing rules that the linter cannot see. Flows in: every source file of the project
 * as text, and package.json. It promises that a broken rule is a red test with file and line, so
 * that no review has to find it.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { quick } from '../../scripts/mutations/quick-list.ts';
import { withServers } from '../../scripts/mutations/server-list.ts';
import { rulesOf, strike } from '../../scripts/mutations/struck-rule.ts';
import { renderMutations } from '../../scripts/mutations/write-table.ts';
import { renderErrorDocs } from '../../scripts/write-error-docs.ts';

interface SourceFile {
  readonly path: string;
  readonly text: string;
  readonly lines: readonly string[];
}

const longestLine = 100;
/** Names of failpoints stay, and a command that stands in for an agent does so. */
const plainWordsMax = 10;
/** A first paragraph that says what flows in and out is longer than a title. */
const shortestParagraph = 60;

const folders = ['src', 'scripts', 'test', 'bench', 'schemas'];
const sourceName = /\.(ts|sql|avsc)$/;

function filesBelow(folder: string): readonly string[] {
  if (!existsSync(folder)) return [];
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8' });
  return names.filter((name) => sourceName.test(name)).map((name) => join(folder, name));
}

const files: readonly SourceFile[] = folders.flatMap(filesBelow).map((path) => {
  const text = readFileSync(path, 'utf8');
  return { path, text, lines: text.split('\n') };
});
const typescript = files.filter(({ path }) => path.endsWith('.ts'));
const tests = files.filter(({ path }) => path.endsWith('.test.ts'));

/** Where a pattern occurs, as `file:line text`. The pattern must have the flags `gm`. */
function places(among: readonly SourceFile[], pattern: RegExp): readonly string[] {
  return among.flatMap(({ path, text }) =>
    [...text.matchAll(pattern)].map((match) => {
      const line = text.slice(0, match.index).split('\n').length;
      return `${path}:${line} ${match[0].trim()}`;
    }),
  );
}

/** Puts a word together, so that this file does not break the rule it enforces. */
function word(...parts: readonly string[]): string {
  return parts.join('');
}

const rules = suite('writing rules');

rules('there are files to look at', () => {
  assert.ok(typescript.length > 10);
  assert.ok(tests.length > 1);
});

rules('file and folder names are kebab-case and say what is inside', () => {
  const kebab = /^[a-z0-9]+(-[a-z0-9]+)*(\.test|\.d)?\.(ts|sql|avsc)$|^[a-z0-9]+(-[a-z0-9]+)*$/;
  const vague = new Set(['util', 'helper', 'common', 'manager', 'misc']);
  const wrong = files.flatMap(({ path }) =>
    path
      .split('/')
      .filter(
        (part) =>
          !kebab.test(part) ||
          part.split(/[-.]/).some((piece) => vague.has(piece.replace(/s$/, ''))),
      )
      .map((part) => `${path}: ${part}`),
  );
  assert.equal(wrong, []);
});

rules('lines are at most 100 columns, unless an address needs more', () => {
  const long = typescript.flatMap(({ path, lines }) =>
    lines
      .map((line, index) => ({ line, place: `${path}:${index + 1}` }))
      .filter(({ line }) => line.length > longestLine && !/https?:\/\/\S{50}/.test(line))
      .map(({ place }) => place),
  );
  assert.equal(long, []);
});

rules('a file begins with a paragraph of what it is', () => {
  const beginning = /^(?:#!.*\n)?(?:\/\/ time-limit: .*\n)?\/\*\*\n([\s\S]*?)\*\//;
  const silent = typescript.filter(({ text }) => {
    const paragraph =
      beginning
        .exec(text)?.[1]
        ?.replace(/^ \* ?/gm, '')
        .trim() ?? '';
    return paragraph.length < shortestParagraph;
  });
  assert.equal(
    silent.map(({ path }) => path),
    [],
  );
});

rules('nothing is left for later', () => {
  const reminders = [word('TO', 'DO'), word('FIX', 'ME'), word('X', 'XX')].join('|');
  assert.equal(places(files, new RegExp(`\\b(${reminders})\\b.*`, 'gm')), []);
});

rules('no catch block is without a statement', () => {
  const comment = '(?:\\s*//[^\\n]*\\n|\\s*/\\*[\\s\\S]*?\\*/)*';
  const pattern = new RegExp(`\\bcatch\\s*(?:\\([^)]*\\))?\\s*\\{${comment}\\s*\\}`, 'gm');
  assert.ok(pattern.test(`try { x() } ${word('cat', 'ch')} (e) { // so what\n }`));
  assert.equal(places(typescript, pattern), []);
});

rules('exports have names', () => {
  const source = typescript.filter(({ path }) => path.startsWith('src') && !path.endsWith('.d.ts'));
  assert.equal(places(source, /^export default .*/gm), []);
});

rules('leaders and followers are called so', () => {
  const old = [word('mas', 'ter'), word('sla', 've')].join('|');
  assert.equal(places(files, new RegExp(`\\b(${old})s?\\b.*`, 'gim')), []);
});

rules('imports are where the linter sees them', () => {
  // The linter judges imports and `await import(…)`, but not the import of a type in place.
  const source = typescript.filter(({ path }) => path.startsWith('src'));
  assert.equal(places(source, /^.*(?<!await )\bimport\(.*/gm), []);
});

rules('sources are written in plain words', () => {
  // Words of no manual: each hides who acts, or what happened.
  const words = ['anew', 'whoever', 'nobody', 'fell silent', 'stands'];
  const source = typescript.filter(({ path }) => path.startsWith('src'));
  const found = places(source, new RegExp(`^.*\\b(${words.join('|')})\\b.*`, 'gim'));
  assert.ok(found.length <= plainWordsMax, `${found.length} lines:\n${found.join('\n')}`);
});

rules('every suite runs, whole', () => {
  const wrong = tests.flatMap(({ path, text }) => {
    const suites = [...text.matchAll(/^const (\w+) = suite\b/gm)].map(([, name]) => name ?? '');
    const names = /^import \{[^}]*\btest\b[^}]*\} from 'uvu'/m.test(text)
      ? [...suites, 'test']
      : suites;
    const idle = names.filter((name) => !text.includes(`\n${name}.run();`));
    const partly = names.filter((name) => new RegExp(`\\b${name}\\.(only|skip)\\(`).test(text));
    return [
      ...(names.length === 0 ? [`${path}: no suite`] : []),
      ...idle.map((name) => `${path}: ${name} never runs`),
      ...partly.map((name) => `${path}: ${name} leaves tests out`),
    ];
  });
  assert.equal(wrong, []);
});

rules('docs/errors.md is what scripts/write-error-docs.ts writes', () => {
  assert.is(readFileSync('docs/errors.md', 'utf8'), renderErrorDocs());
});

const pages: readonly string[] = [
  ...['README.md', 'CONTRIBUTING.md'],
  ...readdirSync('docs', { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.md'))
    .map((name) => join('docs', name)),
];

/** Each text that a pattern's first group finds in a page, with the page. */
function named(pattern: RegExp): readonly { readonly page: string; readonly name: string }[] {
  return pages.flatMap((page) =>
    [...readFileSync(page, 'utf8').matchAll(pattern)].map(([, name = '']) => ({ page, name })),
  );
}

rules('every file and folder of the project that a page names is there', () => {
  const paths = named(/`((?:src|test|scripts|schemas)\/[\w./-]*)`/g);
  assert.ok(paths.length > 80);
  assert.equal(
    paths.filter(({ name }) => !existsSync(name)),
    [],
  );
});

/** As GitHub names a heading in an address. */
function anchorOf(heading: string): string {
  return heading
    .toLowerCase()
    .replace(/[^\w\- ]/g, '')
    .replaceAll(' ', '-');
}

rules('every link between pages leads to a page and to a heading of it', () => {
  const links = named(/\]\((?!https?:)([^)]+)\)/g);
  assert.ok(links.length > 60);
  const broken = links.filter(({ page, name }) => {
    const [path = '', anchor] = name.split('#');
    const target = path === '' ? page : join(dirname(page), path);
    if (!existsSync(target)) return true;
    if (anchor === undefined) return false;
    const headings = readFileSync(target, 'utf8').matchAll(/^#+ (.*)$/gm);
    return ![...headings].some(([, heading = '']) => anchorOf(heading) === anchor);
  });
  assert.equal(broken, []);
});

rules('every guarantee has a number, its condition and its tests', () => {
  const [promised = ''] = readFileSync('docs/guarantees.md', 'utf8').split('## Not promised');
  const guarantees = promised.split(/^(?=\*\*G\d+\. )/m).slice(1);
  const numbers = guarantees.map((text) => Number(/^\*\*G(\d+)/.exec(text)?.[1]));
  assert.equal(
    numbers,
    guarantees.map((_, i) => i + 1),
  );
  const bare = guarantees.filter((text) => {
    return !/^Condition: /m.test(text) || !/^Tests?: [\s\S]*`test\/[^`]+\.test\.ts`/m.test(text);
  });
  assert.equal(bare, []);
});

rules('scripts/mutations/README.md is what write-table.ts writes', () => {
  assert.is(readFileSync('scripts/mutations/README.md', 'utf8'), renderMutations());
});

rules('every mutation finds what it strikes', () => {
  for (const { name, edits } of [...quick, ...withServers]) {
    const texts = new Map<string, string>();
    for (const { file, ...rule } of edits) {
      const text = texts.get(file) ?? readFileSync(file, 'utf8');
      const struck = strike({ file, text }, rule);
      assert.is.not(struck, text, `${name} changes nothing`);
      texts.set(file, struck);
    }
  }
});

rules(
  'every rule that a comment marks is marked once, and a mutation or a model strikes it',
  () => {
    const source = typescript.filter(({ path }) => path.startsWith('src'));
    const marked = source.flatMap(({ path, text }) => {
      return rulesOf(text).map((name) => ({ name, path }));
    });
    const malformed = places(source, /\/\/ ?rule\b.*/gim).length - marked.length;
    assert.is(malformed, 0, 'a comment is `// rule: NAME`, or `// rule: NAME, WHY`');
    const models = tests.filter(({ path }) => path.startsWith('test/model'));
    const inModels = models.flatMap(({ text }) => {
      return [...text.matchAll(/\brule: '([^']+)'/g)].map(([, name = '']) => name);
    });
    const inMutations = [...quick, ...withServers].flatMap(({ edits }) => edits);
    const struck = new Set([...inModels, ...inMutations.map(({ rule }) => rule)]);
    assert.ok(inModels.length > 50);
    const names = marked.map(({ name }) => name);
    assert.equal(
      names.filter((name, i) => names.indexOf(name) !== i),
      [],
      'two rules of one name',
    );
    assert.equal(
      marked.filter(({ name }) => !struck.has(name)),
      [],
      'rules that nothing strikes',
    );
    assert.equal(
      [...struck].filter((name) => !names.includes(name)),
      [],
      'struck, and in no file',
    );
  },
);

rules('package.json ships what it names', () => {
  const manifest = JSON.parse(readFileSync('package.json', 'utf8'));
  assert.is(manifest.type, 'module');
  assert.is(manifest.license, 'Apache-2.0');
  // npm removes a bin that begins with `./` when it publishes.
  assert.equal(manifest.bin, { understudy: 'dist/cli.js', 'pg-understudy': 'dist/cli.js' });
  assert.equal(Object.keys(manifest.exports['.'])[0], 'types', 'conditions are tried in order');
  const listed: readonly string[] = manifest.files;
  for (const name of ['dist', 'schemas', 'docs', 'CHANGELOG.md']) assert.ok(listed.includes(name));
  const missing = listed.filter((name) => name !== 'dist' && !existsSync(name));
  assert.equal(missing, []);
  for (const name of ['LICENSE', 'README.md', 'src/cli.ts', 'src/index.ts']) {
    assert.ok(existsSync(name), name);
  }
  assert.match(readFileSync('src/cli.ts', 'utf8'), /^#!\/usr\/bin\/env node\n/);
});

rules.run();
