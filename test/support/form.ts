/**
 * How long a file may take its time: `short` in `npm test`, `ci` with `--ci` and for a file that is
 * named or run by itself, `full` with `--full`. Files that have more to try in the longer forms ask
 * here.
 */
const form = process.env['UNDERSTUDY_TEST_FORM'] ?? 'ci';

/** More rounds, longer stalls, and larger histories. */
export const isFull = form === 'full';
/** The cases alone that no other file of the short form covers. */
export const isShort = form === 'short';
