/**
 * Strikes a rule out of a file of src, for the mutations and for the models. Flows in: the text of
 * the file, the name of the rule and what replaces it; flows out: the text without the rule.
 *
 * A rule is found by a comment `// rule: NAME` on a line of its own, directly above the statement,
 * declaration, property or case that enforces it; `, WHY` may follow the name. The statement ends
 * before the next line that is not indented further, unless that line begins with what closes a
 * bracket. A marker that is not there, or is there twice, is an error, and so is a part that the
 * statement does not hold exactly once: a mutation that replaces nothing would prove nothing.
 */
export interface Strike {
  readonly rule: string;
  /** What to replace of the statement, where that is not all of it. */
  readonly part?: string;
  /** `$&` in it stands for the text that is replaced. */
  readonly replace: string;
}

interface SourceText {
  readonly file: string;
  readonly text: string;
}

const marker = /^ *\/\/ rule: ([a-z0-9]+(?:-[a-z0-9]+)*)(?:, .+)?$/;
const comment = /^ *\/\//;
const closing = /^[)\]}>`]/;

/** The names of all markers, in their order. */
export function rulesOf(text: string): readonly string[] {
  return text.split('\n').flatMap((line) => marker.exec(line)?.[1] ?? []);
}

export function strike({ file, text }: SourceText, { rule, part, replace }: Strike): string {
  const lines = text.split('\n');
  const places = lines.flatMap((line, at) => (marker.exec(line)?.[1] === rule ? [at] : []));
  const [place] = places;
  if (place === undefined || places.length > 1) {
    throw new Error(`${file} has ${places.length} lines "// rule: ${rule}", not one`);
  }
  const { begin, end } = statementBelow(lines, place);
  if (begin === end) throw new Error(`${file} has no statement below "// rule: ${rule}"`);
  const marked = lines.slice(begin, end).join('\n');
  const whole = marked.trimStart();
  const struck = part ?? whole;
  const pieces = marked.split(struck);
  if (struck === '' || pieces.length !== 2) {
    throw new Error(
      `${file}: the rule ${rule} holds ${pieces.length - 1} times, not once: ${part}`,
    );
  }
  const statement = pieces.join(replace.replaceAll('$&', () => struck));
  return [...lines.slice(0, begin), statement, ...lines.slice(end)].join('\n');
}

/** From the first line below the marker that is no comment; `end` is past the last line. */
function statementBelow(
  lines: readonly string[],
  place: number,
): { readonly begin: number; readonly end: number } {
  let begin = place + 1;
  while (comment.test(lines[begin] ?? '')) begin += 1;
  const first = lines[begin] ?? '';
  const indent = indentOf(first);
  if (first.trim() === '' || indent !== indentOf(lines[place] ?? '') || isClosing(first)) {
    return { begin, end: begin };
  }
  let end = begin + 1;
  for (let at = end; at < lines.length; at += 1) {
    const line = lines[at] ?? '';
    if (line.trim() === '') continue;
    const isPart = indentOf(line) > indent || (indentOf(line) === indent && isClosing(line));
    if (!isPart) break;
    end = at + 1;
  }
  return { begin, end };
}

function indentOf(line: string): number {
  return line.length - line.trimStart().length;
}

function isClosing(line: string): boolean {
  return closing.test(line.trimStart());
}
