// time-limit: 300s
/**
 * Random tables and random transactions on them leave the same rows on every node, wherever one
 * looks. Prints its seed; UNDERSTUDY_SEED replays a run. A history that ends otherwise is shrunk
 * to the steps that matter, each try on tables that were emptied, on a fleet of its own after a
 * failure.
 */
// runs: ci, since test/integration/path-rows.test.ts has every statement
import fc from 'fast-check';
import { test } from 'uvu';
import { ExactReader } from '../support/exact-rows.ts';
import { type Fleet, startFleet } from '../support/fleet.ts';
import { isFull } from '../support/form.ts';
import {
  anyTables,
  anyTransactions,
  createSql,
  foldedCollation,
  type RandomTable,
  type RandomTransaction,
  transactionSql,
} from '../support/random-tables.ts';
import { type Stack, useStack } from '../support/stack.ts';
import { type Matrix, matrixFor } from '../support/type-matrix.ts';
import { matrixTypesSql } from '../support/type-values.ts';

const historiesPerFleet = isFull ? 25 : 6;
const tablesPerFleet = 8;
/** Tries to shrink cost a fleet each. */
const shrinkingMaxMs = 150_000;
const seed = Number(process.env['UNDERSTUDY_SEED'] ?? Math.floor(Math.random() * 2 ** 31));

let stack: Stack;
let matrix: Matrix;

test.before(async () => {
  console.log(`UNDERSTUDY_SEED=${seed}`);
  stack = await useStack({ postgres: 2 });
  matrix = await matrixFor(stack.postgres.slice(0, 2).map((server) => server.superuserUrl));
});

test.after(() => stack?.close());

/** A fleet that histories can be tried on, one after the other. */
class Trial {
  readonly #partitions: number;
  readonly #tables: readonly RandomTable[];
  #running: { readonly fleet: Fleet; readonly reader: ExactReader } | null = null;

  constructor(partitions: number, tables: readonly RandomTable[]) {
    this.#partitions = partitions;
    this.#tables = tables;
  }

  async run(transactions: readonly RandomTransaction[]): Promise<void> {
    const running = this.#running ?? (await this.#start());
    const { fleet, reader } = running;
    this.#running = null;
    try {
      const names = this.#tables.map(({ name }) => name);
      await fleet.sql('a', `TRUNCATE ${names.join(', ')}`);
      for (const [at, transaction] of transactions.entries()) {
        await fleet.sql('a', transactionSql(transaction, this.#tables));
        if (!transaction.isLookedAt && at < transactions.length - 1) continue;
        await fleet.caughtUp();
        for (const name of names) {
          const text = `SELECT t::text FROM public.${name} AS t ORDER BY t::text COLLATE "C"`;
          await reader.assertSame(text, `${name} after transaction ${at + 1}`);
        }
      }
      this.#running = running;
    } finally {
      if (this.#running === null) await end(running);
    }
  }

  async close(): Promise<void> {
    if (this.#running !== null) await end(this.#running);
    this.#running = null;
  }

  async #start(): Promise<{ fleet: Fleet; reader: ExactReader }> {
    const types = [matrixTypesSql(matrix.extensions), foldedCollation];
    const tables = [...types, ...this.#tables.map(createSql)].join(';\n');
    const fleet = await startFleet({ stack, partitions: this.#partitions, tables });
    await fleet.startAgents();
    return { fleet, reader: new ExactReader(fleet) };
  }
}

async function end({ fleet, reader }: { fleet: Fleet; reader: ExactReader }): Promise<void> {
  await reader.close();
  await fleet.close();
}

async function histories(partitions: number, ownSeed: number): Promise<void> {
  const [tables = []] = fc.sample(anyTables(matrix, tablesPerFleet), { seed: ownSeed, numRuns: 1 });
  const trial = new Trial(partitions, tables);
  try {
    await fc.assert(
      fc.asyncProperty(anyTransactions, (transactions) => trial.run(transactions)),
      { seed: ownSeed, numRuns: historiesPerFleet, interruptAfterTimeLimit: shrinkingMaxMs },
    );
  } catch (error) {
    console.log(tables.map(createSql).join(';\n\n'));
    throw error;
  } finally {
    await trial.close();
  }
}

for (let fleet = 0; fleet < (isFull ? 4 : 1); fleet += 1) {
  for (const partitions of [1, 4]) {
    test(`random histories over ${partitions} partitions, fleet ${fleet + 1}`, () =>
      histories(partitions, seed + 2 * fleet + (partitions === 1 ? 0 : 1)));
  }
}

test.run();
