/**
 * Converts float4 and float8 between the text of Postgres and JavaScript numbers. The text is the
 * one that Postgres prints with extra_float_digits above 0: the shortest that reads back as the
 * same bits. Text to number gives the same bits, number to text gives exactly the same text, so
 * that identity values and digests from either side agree.
 *
 * JavaScript prints shortest doubles too, with two differences: it formats the exponent otherwise,
 * and it accepts a decimal exactly half-way between two doubles, where Postgres takes one that is
 * strictly nearer. Such a decimal is an integer above 2^53, so only there the exact search is
 * needed.
 */

/** Postgres prints an exponent from this many integer digits on (DBL_DIG and FLT_DIG). */
const doubleFixedDigits = 15;
const floatFixedDigits = 6;
/** Decimal digits that always distinguish two floats. */
const floatDigitsMax = 9;
const exactIntegerLimit = 2 ** 53;

const bits = new DataView(new ArrayBuffer(8));

/** Reads float8 text; JavaScript and Postgres both round correctly. */
export function doubleFromText(text: string): number {
  return Number(text);
}

export function textFromDouble(value: number): string {
  const size = Math.abs(value);
  if (size >= 1e-4 && size < 1e15) return String(value);
  if (value === 0) return Object.is(value, -0) ? '-0' : '0';
  if (!Number.isFinite(value)) return String(value);
  const decimal = size < exactIntegerLimit ? decimalOf(String(size)) : shortest(binaryOf(size));
  return layOut(value < 0, decimal, doubleFixedDigits);
}

/**
 * Reads float4 text as strtof does. Rounding to a double first and to a float then is wrong where
 * the double falls exactly between two floats although the text does not: there the text decides.
 */
export function floatFromText(text: string): number {
  const wide = Number(text);
  const near = Math.fround(wide);
  if (near === wide || !Number.isFinite(near)) return near;
  const other = wide + (wide - near);
  if (Math.fround(other) !== other) return near;
  const side = compareDecimal(decimalOf(text.replace('-', '')), binaryOf(Math.abs(wide)));
  if (side === 0) return near;
  const larger = Math.abs(near) > Math.abs(other) ? near : other;
  return side > 0 ? larger : larger === near ? other : near;
}

export function textFromFloat(value: number): string {
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e6 && size !== 0) return String(value);
  if (value === 0) return Object.is(value, -0) ? '-0' : '0';
  if (!Number.isFinite(value)) return String(value);
  return layOut(value < 0, shortestFloat(size), floatFixedDigits);
}

/** digits × 10^(exponent - digits.length + 1), without zeros at either end. */
interface Decimal {
  readonly digits: string;
  /** Of the first digit, as in scientific notation. */
  readonly exponent: number;
}

/** mantissa × 2^exponent. */
interface Binary {
  readonly mantissa: bigint;
  readonly exponent: number;
  /** The neighbour below is half as far as the one above: at powers of two. */
  readonly lowerIsNearer: boolean;
}

function decimalOf(text: string): Decimal {
  const mark = text.indexOf('e');
  const mantissa = mark < 0 ? text : text.slice(0, mark);
  const dot = mantissa.indexOf('.');
  const whole = dot < 0 ? mantissa : mantissa.slice(0, dot);
  const all = dot < 0 ? whole : whole + mantissa.slice(dot + 1);
  const digits = all.replace(/^0+/, '');
  const leadingZeros = all.length - digits.length;
  return {
    digits: digits.replace(/0+$/, ''),
    exponent: (mark < 0 ? 0 : Number(text.slice(mark + 1))) + whole.length - leadingZeros - 1,
  };
}

function layOut(negative: boolean, { digits, exponent }: Decimal, fixedDigits: number): string {
  const sign = negative ? '-' : '';
  if (exponent < -4 || exponent >= fixedDigits) {
    const rest = digits.length > 1 ? `.${digits.slice(1)}` : '';
    const size = String(Math.abs(exponent)).padStart(2, '0');
    return `${sign}${digits.charAt(0)}${rest}e${exponent < 0 ? '-' : '+'}${size}`;
  }
  if (exponent < 0) return `${sign}0.${'0'.repeat(-exponent - 1)}${digits}`;
  const whole = digits.slice(0, exponent + 1).padEnd(exponent + 1, '0');
  return digits.length > whole.length
    ? `${sign}${whole}.${digits.slice(whole.length)}`
    : sign + whole;
}

/** The bits of a positive finite double. */
function binaryOf(value: number): Binary {
  bits.setFloat64(0, value);
  const all = bits.getBigUint64(0);
  const fraction = all & 0xfffffffffffffn;
  const biased = Number(all >> 52n);
  return {
    mantissa: biased === 0 ? fraction : fraction | 0x10000000000000n,
    exponent: Math.max(biased, 1) - 1075,
    lowerIsNearer: fraction === 0n && biased > 1,
  };
}

/** The bits of a positive finite float. */
function binaryOfFloat(value: number): Binary {
  bits.setFloat32(0, value);
  const all = bits.getUint32(0);
  const fraction = all & 0x7fffff;
  const biased = all >>> 23;
  return {
    mantissa: BigInt(biased === 0 ? fraction : fraction | 0x800000),
    exponent: Math.max(biased, 1) - 150,
    lowerIsNearer: fraction === 0 && biased > 1,
  };
}

/**
 * The shortest decimal of a float. toPrecision rounds correctly, so the first precision whose
 * result lies strictly inside is the answer; six digits are never ambiguous, so it starts there.
 * Powers of two, denormals and exact halves, where that reasoning fails, take the exact search.
 */
function shortestFloat(value: number): Decimal {
  const binary = binaryOfFloat(value);
  if (binary.lowerIsNearer || binary.mantissa < 0x800000n) return shortest(binary);
  const reach = 2 ** (binary.exponent - 1);
  for (let precision = floatFixedDigits; precision <= floatDigitsMax; precision += 1) {
    const text = value.toPrecision(precision);
    const read = Number(text);
    const distance = Math.abs(read - value);
    if (distance > reach) continue;
    const half = distance !== 0 && Number(value.toPrecision(precision + 1)) === value;
    return half || distance === reach ? shortest(binary) : decimalOf(text);
  }
  return shortest(binary);
}

/**
 * The exact search: the fewest digits that lie strictly between the two half-way points, and among
 * those the nearest to the value, an even last digit where two are equally near.
 */
function shortest(binary: Binary): Decimal {
  // Everything is scaled to integers: value, low and high are over `unit`, in quarters of an ulp.
  const shift = binary.exponent - 2;
  const up = shift > 0 ? 1n << BigInt(shift) : 1n;
  const unit = shift < 0 ? 1n << BigInt(-shift) : 1n;
  const value = binary.mantissa * 4n * up;
  const high = value + 2n * up;
  const low = value - (binary.lowerIsNearer ? 1n : 2n) * up;
  let place = decimalPlaceOf(high, unit);
  for (;;) {
    // One step of the last digit is `step / scale`; candidates are the multiples around value.
    const step = place > 0 ? 10n ** BigInt(place) * unit : unit;
    const scale = place < 0 ? 10n ** BigInt(-place) : 1n;
    const below = (value * scale) / step;
    const rest = value * scale - below * step;
    const belowIsIn = below * step > low * scale;
    const aboveIsIn = (below + 1n) * step < high * scale;
    if (belowIsIn || aboveIsIn) {
      const twice = rest * 2n;
      const nearBelow = twice < step || (twice === step && below % 2n === 0n);
      const chosen = belowIsIn && (nearBelow || !aboveIsIn) ? below : below + 1n;
      const digits = chosen.toString();
      return { digits: digits.replace(/0+$/, ''), exponent: place + digits.length - 1 };
    }
    place -= 1;
  }
}

/** The place of the first digit of numerator / unit: an upper bound, at most one too high. */
function decimalPlaceOf(numerator: bigint, unit: bigint): number {
  const whole = numerator / unit;
  if (whole > 0n) return whole.toString().length;
  return 1 - ((unit / numerator).toString().length - 1);
}

/** -1, 0 or 1: how the decimal compares with the binary, exactly. */
function compareDecimal({ digits, exponent }: Decimal, binary: Binary): number {
  const place = exponent - digits.length + 1;
  let left = BigInt(digits);
  let right = binary.mantissa;
  if (place > 0) left *= 10n ** BigInt(place);
  else right *= 10n ** BigInt(-place);
  if (binary.exponent > 0) right <<= BigInt(binary.exponent);
  else left <<= BigInt(-binary.exponent);
  return left < right ? -1 : left > right ? 1 : 0;
}
