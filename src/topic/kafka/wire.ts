/**
 * The primitive types of Kafka's protocol, and what a request is made of. A request knows how to
 * decode its answer; errors inside answers are left to the caller, which alone knows what may be
 * retried.
 */

export interface KafkaRequest<T> {
  readonly apiKey: number;
  readonly apiVersion: number;
  readonly apiName: string;
  readonly body: Buffer;
  /** How long the client waits for the answer. */
  readonly timeoutMs: number;
  readonly decode: (payload: Buffer) => T;
}

/** Writes the primitive types of the protocol into one growing buffer. */
export class WireWriter {
  #bytes: Buffer;
  #length = 0;

  constructor(sizeBytes = 256) {
    this.#bytes = Buffer.allocUnsafe(sizeBytes);
  }

  #reserve(size: number): number {
    const at = this.#length;
    this.#length += size;
    if (this.#length > this.#bytes.length) {
      const larger = Buffer.allocUnsafe(this.#length * 2);
      this.#bytes.copy(larger, 0, 0, at);
      this.#bytes = larger;
    }
    return at;
  }

  int8(value: number): this {
    const at = this.#reserve(1);
    this.#bytes.writeInt8(value, at);
    return this;
  }

  int16(value: number): this {
    const at = this.#reserve(2);
    this.#bytes.writeInt16BE(value, at);
    return this;
  }

  int32(value: number): this {
    const at = this.#reserve(4);
    this.#bytes.writeInt32BE(value, at);
    return this;
  }

  int64(value: bigint): this {
    const at = this.#reserve(8);
    this.#bytes.writeBigInt64BE(value, at);
    return this;
  }

  string(value: string | null): this {
    if (value === null) return this.int16(-1);
    const size = Buffer.byteLength(value);
    this.int16(size);
    const at = this.#reserve(size);
    this.#bytes.write(value, at);
    return this;
  }

  bytes(value: Buffer): this {
    this.int32(value.length);
    const at = this.#reserve(value.length);
    value.copy(this.#bytes, at);
    return this;
  }

  finish(): Buffer {
    return this.#bytes.subarray(0, this.#length);
  }
}

/** Reads the primitive types of the protocol; byte fields are views into the answer. */
export class WireReader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  #step(size: number): number {
    const at = this.#at;
    this.#at += size;
    return at;
  }

  int16(): number {
    return this.#bytes.readInt16BE(this.#step(2));
  }

  int32(): number {
    return this.#bytes.readInt32BE(this.#step(4));
  }

  int64(): bigint {
    return this.#bytes.readBigInt64BE(this.#step(8));
  }

  string(): string {
    const size = this.int16();
    if (size < 0) return '';
    const at = this.#step(size);
    return this.#bytes.toString('utf8', at, at + size);
  }

  bytes(): Buffer {
    const size = this.int32();
    if (size <= 0) return Buffer.alloc(0);
    const at = this.#step(size);
    return this.#bytes.subarray(at, at + size);
  }

  array<T>(item: () => T): T[] {
    const items: T[] = [];
    for (let left = this.int32(); left > 0; left -= 1) items.push(item());
    return items;
  }
}
