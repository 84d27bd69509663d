/**
 * The headers of a record: `position` as text for kcat, `u 3:0/16B3748:17 1763700000123456` (op,
 * epoch:commit LSN:ordinal, commit time in µs); `was`, the old identity on the new row of a key
 * change; `unchanged`, the ids of columns for which the record has no value. The leader encodes
 * them, followers decode them, exact both ways.
 */
import type { RowOp } from '../../change/change.ts';
import { formatLsn, type Lsn, parseLsn } from '../../change/lsn.ts';
import type { Position } from '../../change/position.ts';
import { foreignRecord } from '../../errors/topic.ts';
import type { UnderstudyError } from '../../errors/understudy-error.ts';

/** `-` on every record that is not a row. */
export type HeaderOp = RowOp | '-';

export interface PositionHeader {
  readonly op: HeaderOp;
  readonly position: Position;
  readonly commitTimeMicros: bigint;
}

export function encodePositionHeader(header: PositionHeader): string {
  const { op, position, commitTimeMicros } = header;
  const lsn = formatLsn(position.commitLsn);
  return `${op} ${position.epoch}:${lsn}:${position.ordinal} ${commitTimeMicros}`;
}

const headerPattern =
  /^([cudr-]) ([1-9]\d{0,8}):([0-9A-F]{1,8}\/[0-9A-F]{1,8}):(-1|\d{1,15}) (\d+)$/;

/**
 * Decodes headers of one partition. Consecutive records mostly belong to one transaction, so the
 * LSN and the time of the last one are cached: their text is compared, not parsed again.
 */
export class PositionHeaderDecoder {
  #lsnText = '';
  #lsn = 0n as Lsn;
  #timeText = '';
  #time = 0n;

  decode(header: Buffer | undefined): PositionHeader {
    const text = header === undefined ? '' : header.toString('latin1');
    const match = headerPattern.exec(text);
    if (match === null) {
      throw unreadable('position', text);
    }
    const [, op = '-', epoch = '', lsn = '', ordinal = '', time = ''] = match;
    if (lsn !== this.#lsnText) {
      this.#lsnText = lsn;
      this.#lsn = parseLsn(lsn);
    }
    if (time !== this.#timeText) {
      this.#timeText = time;
      this.#time = BigInt(time);
    }
    return {
      op: op as HeaderOp,
      position: { epoch: Number(epoch), commitLsn: this.#lsn, ordinal: Number(ordinal) },
      commitTimeMicros: this.#time,
    };
  }
}

/** `was` and `unchanged` hold a JSON array of text. */
export function encodeTexts(texts: readonly string[]): string {
  return JSON.stringify(texts);
}

/** Null where the header is absent. */
export function decodeTexts(
  name: 'was' | 'unchanged',
  headers: Readonly<Record<string, Buffer>>,
): readonly string[] | null {
  const header = headers[name];
  if (header === undefined) return null;
  const text = header.toString('utf8');
  const texts = parsedJson(text);
  const readable = Array.isArray(texts) && texts.every((value) => typeof value === 'string');
  if (readable) return texts;
  throw unreadable(name, text);
}

function unreadable(header: string, text: string): UnderstudyError {
  return foreignRecord(`a record carries no readable ${header} header: ${JSON.stringify(text)}`, {
    header,
    text,
  });
}

/** Undefined for invalid JSON, which the caller reports. */
function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
