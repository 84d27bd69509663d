/**
 * Reads the text of understudy.yaml. It returns a file whose every key and value is known and
 * supported by this version, or throws one error that names the line, the key and the remedy.
 * Messages never hold a value of the file: it may be a secret.
 */

import { type Document, isMap, isSeq, LineCounter, parseDocument } from 'yaml';
import type { z } from 'zod';
import { bug } from '../errors/bug.ts';
import type { UnderstudyError } from '../errors/understudy-error.ts';
import {
  invalidSetting,
  invalidYaml,
  invalidYamlAlias,
  settingOfLaterVersion,
  unknownSetting,
} from '../errors/usage.ts';
import { redactText } from '../redact.ts';
import { type ConfigFile, fileSchema, knownKeys, laterSettings } from './schema.ts';
import { nearestWord } from './suggest.ts';

type Issue = z.core.$ZodIssue;
type Path = readonly PropertyKey[];

interface Source {
  readonly file: string;
  readonly document: Document;
  readonly lines: LineCounter;
}

/** Throws CONFIG_INVALID, or NOT_IN_THIS_VERSION for a setting of a later version. */
export function readConfigText(text: string, file: string): ConfigFile {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const source: Source = { file, document, lines };
  const [syntaxError] = document.errors;
  if (syntaxError !== undefined) {
    const { line } = lines.linePos(syntaxError.pos[0]);
    throw invalidYaml(file, line, syntaxError.code);
  }
  const result = fileSchema.safeParse(toPlain(source));
  if (!result.success) throw issueError(source, result.error.issues);
  refuseLater(source, result.data);
  return result.data;
}

function toPlain(source: Source): unknown {
  try {
    return source.document.toJS({ maxAliasCount: 100 });
  } catch (cause) {
    throw invalidYamlAlias(source.file, cause);
  }
}

function issueError(source: Source, issues: readonly Issue[]): UnderstudyError {
  const found = issues.map((issue) => deepest(issue));
  // A misspelt key is a missing one too: where it is written there is something to correct.
  const unknown = found.find((issue) => issue.code === 'unrecognized_keys');
  const first = unknown ?? found[0];
  if (first === undefined) {
    return bug('a configuration was rejected without an issue');
  }
  if (first.code === 'unrecognized_keys') return unknownKeyError(source, first, found);
  const more = moreThan(1, found.length);
  const where = lineOf(source, first.path);
  const key = first.path.length === 0 ? 'the file' : dotted(first.path);
  return invalidSetting(where, key, `${describe(first)}${more}`, hintFor(first));
}

function moreThan(shown: number, all: number): string {
  return all > shown ? ` (and ${all - shown} more)` : '';
}

/** Of a value that may have several forms, the issue of the form that it nearly has. */
function deepest(issue: Issue): Issue {
  if (issue.code === 'invalid_union') {
    const branches = issue.errors.map((branch) => branch[0]);
    const near = branches.find((inner) => inner !== undefined && !isWrongForm(inner));
    if (near === undefined) return issue;
    return deepest({ ...near, path: [...issue.path, ...near.path] });
  }
  if (issue.code === 'invalid_key' && issue.issues[0] !== undefined) {
    return { ...issue.issues[0], path: issue.path };
  }
  return issue;
}

function isWrongForm(issue: Issue): boolean {
  return issue.code === 'invalid_type' && issue.path.length === 0;
}

function describe(issue: Issue): string {
  switch (issue.code) {
    case 'invalid_type':
      if (issue.message.startsWith('must')) return issue.message;
      if (issue.message.endsWith('received undefined')) return 'is missing';
      return `must be ${article(issue.expected)}`;
    case 'invalid_value':
      return `must be ${orList(issue.values.map(String))}`;
    case 'too_small':
      if (issue.origin !== 'number' && issue.origin !== 'int') return issue.message;
      return `must be at least ${issue.minimum}`;
    case 'too_big':
      return `must be at most ${issue.maximum}`;
    case 'invalid_union':
      return issue.message.startsWith('must') ? issue.message : 'has the wrong form';
    default:
      return issue.message;
  }
}

const typeNames: Readonly<Record<string, string>> = {
  string: 'a text (quote it)',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'a list: […]',
  object: 'a group of keys: {…}',
  record: 'a group of keys: {…}',
};

function article(expected: string): string {
  return typeNames[expected] ?? expected;
}

function orList(words: readonly string[]): string {
  if (words.length < 2) return words.join('');
  return `${words.slice(0, -1).join(', ')} or ${words.at(-1)}`;
}

function hintFor(issue: Issue): string {
  const key = issue.path.length === 0 ? 'cluster, nodes, kafka and registry' : dotted(issue.path);
  if (describe(issue) === 'is missing') return `Add ${key}.`;
  return `Correct ${key}.`;
}

function unknownKeyError(
  source: Source,
  issue: Extract<Issue, { code: 'unrecognized_keys' }>,
  found: readonly Issue[],
): UnderstudyError {
  const key = issue.keys[0] ?? '';
  const path = [...issue.path, key];
  const level = issue.path.map((part, at) => (at === 1 && issue.path[0] === 'nodes' ? '*' : part));
  const siblings = knownKeys[level.join('.')] ?? [];
  const nearest = nearestWord(key, siblings);
  const elsewhere = Object.entries(knownKeys).find(([, keys]) => keys.includes(key));
  let meant: string | null = null;
  if (nearest !== null) meant = dotted([...issue.path, nearest]);
  else if (elsewhere !== undefined) meant = dotted([elsewhere[0], key]);
  const isExplained = (other: Issue): boolean =>
    describe(other) === 'is missing' && dotted(other.path) === meant;
  const more = moreThan(1, found.filter((other) => !isExplained(other)).length);
  return unknownSetting(lineOf(source, path), dotted(path), more, meant, siblings);
}

function refuseLater(source: Source, file: ConfigFile): void {
  const [later] = laterSettings(file);
  if (later === undefined) return;
  throw settingOfLaterVersion(lineOf(source, later.path), dotted(later.path), later.today);
}

function dotted(path: Path): string {
  const text = path
    .filter((part) => part !== '')
    .map(String)
    .join('.');
  return redactText(text.replace(/\s+/g, ' ')).slice(0, longestKeyShown);
}

/** A whole file pasted into one key must not become the error line. */
const longestKeyShown = 120;

/** `understudy.yaml:7`: the line of the key, or of the nearest key above it that the file has. */
function lineOf(source: Source, path: Path): string {
  let node: unknown = source.document.contents;
  let offset: number | null = null;
  for (const part of path) {
    let next: { readonly at: unknown; readonly value: unknown } | null = null;
    if (isMap(node)) {
      const pair = node.items.find((item) => keyText(item.key) === String(part));
      if (pair !== undefined) next = { at: pair.key, value: pair.value };
    } else if (isSeq(node)) {
      const item = node.items[Number(part)];
      if (item !== undefined) next = { at: item, value: item };
    }
    if (next === null) break;
    offset = startOf(next.at) ?? offset;
    node = next.value;
  }
  return offset === null ? source.file : `${source.file}:${source.lines.linePos(offset).line}`;
}

function keyText(key: unknown): string {
  if (typeof key === 'object' && key !== null && 'value' in key) return String(key.value);
  return String(key);
}

function startOf(node: unknown): number | null {
  if (typeof node !== 'object' || node === null || !('range' in node)) return null;
  return Array.isArray(node.range) && typeof node.range[0] === 'number' ? node.range[0] : null;
}
