/**
 * Types of the decoder of kafkajs that our batches are compared with: bytes flow in, the fields of
 * a batch and its records flow out. Only tests import it.
 */
declare module 'kafkajs/src/protocol/decoder.js' {
  export default class Decoder {
    constructor(bytes: Buffer);
  }
}

declare module 'kafkajs/src/protocol/recordBatch/v0/decoder.js' {
  import type Decoder from 'kafkajs/src/protocol/decoder.js';

  export default function decodeRecordBatch(decoder: Decoder): Promise<{
    readonly producerId: string;
    readonly firstSequence: number;
    readonly inTransaction: boolean;
    readonly records: readonly {
      readonly offset: string;
      readonly key: Buffer;
      readonly value: Buffer | null;
    }[];
  }>;
}
