/**
 * Positions in the log. A Position orders all records; an EpochLsn is the end LSN that users,
 * tokens and position rows carry. Both have one text form, used in headers, keys and JSON.
 *
 * Inside an epoch commit LSNs order transactions; across epochs the epoch does. Two leaders' LSNs
 * are never compared.
 */
import { formatLsn, isLsnText, type Lsn, parseLsn } from './lsn.ts';

/** `3:0/16B3748`: everything of epoch 3 whose commit LSN is below, strictly. */
export interface EpochLsn {
  readonly epoch: number;
  readonly lsn: Lsn;
}

/** `3:0/16B3748:17`. The ordinal counts a transaction's records from 0; a point's is -1. */
export interface Position {
  readonly epoch: number;
  readonly commitLsn: Lsn;
  readonly ordinal: number;
}

/** A point sorts below every record of a transaction that commits exactly at its `upto`. */
const pointOrdinal = -1;

export function pointPosition(at: EpochLsn): Position {
  return { epoch: at.epoch, commitLsn: at.lsn, ordinal: pointOrdinal };
}

export function compareEpochLsn(a: EpochLsn, b: EpochLsn): number {
  if (a.epoch !== b.epoch) return a.epoch < b.epoch ? -1 : 1;
  if (a.lsn === b.lsn) return 0;
  return a.lsn < b.lsn ? -1 : 1;
}

export function comparePositions(a: Position, b: Position): number {
  if (a.epoch !== b.epoch) return a.epoch < b.epoch ? -1 : 1;
  if (a.commitLsn !== b.commitLsn) return a.commitLsn < b.commitLsn ? -1 : 1;
  return Math.sign(a.ordinal - b.ordinal);
}

/**
 * Whether `upto` covers the record: same epoch and commit LSN strictly below, or an older epoch.
 */
export function isCovered(position: Position, upto: EpochLsn): boolean {
  if (position.epoch !== upto.epoch) return position.epoch < upto.epoch;
  // rule: covered-strictly-below
  return position.commitLsn < upto.lsn;
}

export function formatEpochLsn(at: EpochLsn): string {
  return `${at.epoch}:${formatLsn(at.lsn)}`;
}

/** Parses `3:0/16B3748`, or null for any other text. */
export function parseEpochLsn(text: string): EpochLsn | null {
  const colon = text.indexOf(':');
  const epoch = text.slice(0, colon);
  const lsn = text.slice(colon + 1);
  if (colon < 1 || !/^[1-9][0-9]{0,8}$/.test(epoch) || !isLsnText(lsn)) return null;
  return { epoch: Number(epoch), lsn: parseLsn(lsn) };
}

export function formatPosition(position: Position): string {
  return `${position.epoch}:${formatLsn(position.commitLsn)}:${position.ordinal}`;
}

/** Parses `3:0/16B3748:17`, or null for any other text. */
export function parsePosition(text: string): Position | null {
  const colon = text.lastIndexOf(':');
  const at = parseEpochLsn(text.slice(0, colon));
  const ordinal = text.slice(colon + 1);
  if (at === null || !/^(-1|[0-9]{1,15})$/.test(ordinal)) return null;
  return { epoch: at.epoch, commitLsn: at.lsn, ordinal: Number(ordinal) };
}

export interface EpochBase {
  readonly epoch: number;
  /** What the epoch continues; null for the first. */
  readonly base: EpochLsn | null;
}

/** Void records: those of lower epochs past the base that an epoch continues. */
export function isVoid(position: Position, epochs: readonly EpochBase[]): boolean {
  return epochs.some(({ epoch, base }) => {
    return position.epoch < epoch && (base === null || !isCovered(position, base));
  });
}
