/**
 * Bounds the lists in the answer of a promotion or a detach. The answer is one record of the
 * control log, and Kafka refuses a record above a megabyte: ten thousand sequences would be one. It
 * takes what was set and what is lacking, and gives the first of each with the number of the rest;
 * the caller logs the whole lists where something is left out. Pure.
 */
import type { SequenceChange } from './sequences.ts';

interface Lists {
  readonly sequences: readonly SequenceChange[];
  readonly lacks: readonly string[];
}

export interface BoundedLists extends Lists {
  /** How many of them the lists leave out. */
  readonly leftOut: { readonly sequences: number; readonly lacks: number };
}

/** Together less than half of a record, with what JSON adds. */
const sequencesMax = 500;
const lacksMax = 200;
const charactersMax = 100_000;

export function boundedLists({ sequences, lacks }: Lists): BoundedLists {
  const shownSequences = firstOf(sequences, sequencesMax, ({ sequence, from, to }) => {
    return sequence.length + (from?.length ?? 0) + to.length;
  });
  const shownLacks = firstOf(lacks, lacksMax, (line) => line.length);
  return {
    sequences: shownSequences,
    lacks: shownLacks,
    leftOut: {
      sequences: sequences.length - shownSequences.length,
      lacks: lacks.length - shownLacks.length,
    },
  };
}

/** Lines for a person, one for each list that is not whole. */
export function leftOutLines({ leftOut }: Pick<BoundedLists, 'leftOut'>): string[] {
  const lines = [
    { count: leftOut.sequences, what: 'sequences that were set' },
    { count: leftOut.lacks, what: 'parts that it lacks' },
  ];
  return lines
    .filter(({ count }) => count > 0)
    .map(({ count, what }) => `  and ${count} more ${what}: the log of its agent names them`);
}

function firstOf<One>(
  all: readonly One[],
  countMax: number,
  charactersOf: (one: One) => number,
): readonly One[] {
  let characters = 0;
  const end = all.findIndex((one, index) => {
    characters += charactersOf(one);
    return index >= countMax || characters > charactersMax;
  });
  return end < 0 ? all : all.slice(0, end);
}
