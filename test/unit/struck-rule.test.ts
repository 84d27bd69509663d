/**
 * How a rule is found by its marker and struck out of a source: where a statement ends, what of it
 * is replaced, and that a rule which is not found, or not found once, is an error that names it.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { rulesOf, type Strike, strike } from '../../scripts/mutations/struck-rule.ts';

const source = `export class Loop {
  // rule: a-field
  readonly #a = 1;

  /** What it does. */
  // rule: a-method, since a method is a declaration
  async run(
    x: number,
  ): Promise<void> {
    // rule: a-line
    const y = await this.read(x);
    // rule: a-block, for reasons
    // that need two lines.
    if (
      y > 1 &&
      x > 1
    ) {
      stop();

      end();
    } else {
      go();
    }
    // rule: a-call
    await this.call(async () => {
      hit();
    }).catch(() => {
      miss();
    });
    switch (y) {
      // rule: a-case
      case 1:
        one();
        return;
      case 2:
        two();
    }
    if (y > 2) {
      // rule: the-last
      last();
    }
  }
}
`;

function struck(rule: string, replace = '<$&>', part?: string): string {
  const of: Strike = part === undefined ? { rule, replace } : { rule, replace, part };
  return strike({ file: 'src/loop.ts', text: source }, of);
}

/** The text that the rule marks. */
function marked(rule: string): string {
  const [, text = ''] = /<<([\s\S]*)>>/.exec(struck(rule, '<<$&>>')) ?? [];
  return text;
}

test('a statement ends before the next line that is not indented further', () => {
  assert.is(marked('a-field'), 'readonly #a = 1;');
  assert.is(marked('a-line'), 'const y = await this.read(x);');
  assert.is(marked('the-last'), 'last();');
  assert.is(marked('a-case'), 'case 1:\n        one();\n        return;');
});

test('a line that closes a bracket belongs to the statement, and so does what follows it', () => {
  const block = marked('a-block');
  assert.ok(block.startsWith('if (\n'), block);
  assert.ok(block.endsWith('else {\n      go();\n    }'), block);
  const call = marked('a-call');
  assert.ok(call.startsWith('await this.call('), call);
  assert.ok(call.endsWith('miss();\n    });'), call);
});

test('a declaration is marked below its comment, and holds the rules inside', () => {
  const method = marked('a-method');
  assert.ok(method.startsWith('async run(\n'), method);
  assert.ok(method.endsWith('last();\n    }\n  }'), method);
  assert.ok(rulesOf(method).includes('a-line'));
});

test('all of a statement is replaced, or a part of it, and the rest stays', () => {
  assert.is(struck('a-line', ''), source.replace('const y = await this.read(x);', ''));
  const more = struck('a-line', 'before(); $& after();');
  assert.ok(more.includes('    before(); const y = await this.read(x); after();\n'), more);
  const other = struck('a-block', '$& || true', 'x > 1');
  assert.is(other, source.replace('x > 1', 'x > 1 || true'));
  assert.ok(struck('a-line', '$1 $$', 'y').includes('const $1 $$ = await'), 'no other pattern');
});

test('a rule without a statement, without a marker or with two is an error', () => {
  assert.throws(() => struck('no-such'), /src\/loop\.ts has 0 lines "\/\/ rule: no-such"/);
  const twice = { file: 'src/x.ts', text: '// rule: a-b\na();\n// rule: a-b\nb();\n' };
  assert.throws(() => strike(twice, { rule: 'a-b', replace: '' }), /has 2 lines "\/\/ rule: a-b"/);
  const bare = { file: 'src/x.ts', text: '{\n  a();\n  // rule: a-b\n}\n' };
  assert.throws(() => strike(bare, { rule: 'a-b', replace: '' }), /no statement below .* a-b"/);
  const apart = { file: 'src/x.ts', text: '// rule: a-b\n\na();\n' };
  assert.throws(() => strike(apart, { rule: 'a-b', replace: '' }), /no statement below .* a-b"/);
});

test('a part that the statement does not hold exactly once is an error', () => {
  assert.throws(() => struck('a-line', '', 'stop'), /a-line holds 0 times, not once: stop/);
  assert.throws(() => struck('a-block', '', '> 1'), /a-block holds 2 times, not once: > 1/);
  assert.throws(() => struck('a-line', '', ''), /a-line holds/);
});

test('names are found in their order, with or without a reason', () => {
  assert.equal(rulesOf(source), [
    'a-field',
    'a-method',
    'a-line',
    'a-block',
    'a-call',
    'a-case',
    'the-last',
  ]);
  assert.equal(
    rulesOf('// rule: Not-Kebab\n// rule: a b\n/* rule: c */\ncall(); // rule: d\n'),
    [],
  );
});

test.run();
