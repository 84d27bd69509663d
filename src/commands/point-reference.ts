/**
 * P, as in `--at P`: a consistency point as people name it. Text flows in; a label, or an end LSN
 * with its epoch, flows out. A bare LSN means the current epoch, which only the control log knows,
 * so its epoch is null here. A label has no slash and an LSN always has one.
 */
import { isLsnText, type Lsn, parseLsn } from '../change/lsn.ts';
import { parseEpochLsn } from '../change/position.ts';
import { UnderstudyError } from '../errors/understudy-error.ts';

export type PointReference =
  | { readonly kind: 'label'; readonly label: string }
  | { readonly kind: 'lsn'; readonly epoch: number | null; readonly lsn: Lsn };

const labelPattern = /^[a-z][a-z0-9_.-]{0,62}$/;

function isPointLabel(text: string): boolean {
  return labelPattern.test(text);
}

export function parsePointLabel(text: string): string {
  if (isPointLabel(text)) return text;
  throw new UnderstudyError(
    'LABEL_INVALID',
    `${JSON.stringify(text)} is not a point label`,
    'A label is 1 to 63 of a-z, 0-9, _ . and -, beginning with a letter.',
  );
}

export function parsePointReference(text: string): PointReference {
  const at = parseEpochLsn(text);
  if (at !== null) return { kind: 'lsn', epoch: at.epoch, lsn: at.lsn };
  if (isLsnText(text)) return { kind: 'lsn', epoch: null, lsn: parseLsn(text) };
  if (isPointLabel(text)) return { kind: 'label', label: text };
  throw new UnderstudyError(
    'USAGE',
    `${JSON.stringify(text)} is neither a point label nor an LSN`,
    'Write a label such as before-migration, or an LSN such as 3:0/16B3748 or 0/16B3748.',
  );
}
