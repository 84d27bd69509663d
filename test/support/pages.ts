/**
 * The commands that the pages for users name: lines of code blocks, and code within a line. It
 * takes Markdown and gives the commands as they are printed; a line that ends in `\` goes on.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface PageCommand {
  readonly page: string;
  readonly command: string;
}

/** Those that begin with one of the words, of README.md and all of docs/ but the decisions. */
export function commandsOfPages(begin: RegExp): readonly PageCommand[] {
  const docs = readdirSync('docs', { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.md') && !file.startsWith('decisions'))
    .map((file) => join('docs', file));
  return ['README.md', ...docs].flatMap((page) => {
    return codeOf(readFileSync(page, 'utf8'))
      .filter((code) => begin.test(code))
      .map((command) => ({ page, command }));
  });
}

export function codeOf(markdown: string): readonly string[] {
  const found: string[] = [];
  const prose: string[] = [];
  let isFenced = false;
  for (const line of markdown.replace(/\\\n\s*/g, '').split('\n')) {
    if (/^\s*```/.test(line)) isFenced = !isFenced;
    // Within a list, code is indented by four more than its text.
    else if (isFenced || /^ {4}(?! *[-*\d])/.test(line)) found.push(line.trim());
    else prose.push(line);
  }
  const inline = prose.join('\n').matchAll(/`([^`]+)`/g);
  return [...found, ...[...inline].map(([, code = '']) => code.replace(/\s*\n\s*/g, ' '))].map(
    (code) => code.replace(/\s+#.*$/, '').trim(),
  );
}
