/**
 * What the golden bytes of format 1 mean: one change, point or epoch begin for each kind of record,
 * with the odd names and extreme values that an encoding is most likely to get wrong. Flows out:
 * the cases by name; format-1.json holds their bytes. A case is never changed, only added.
 */
import type {
  Change,
  EpochBegin,
  Point,
  RelationShape,
  SequencePosition,
} from '../../src/change/change.ts';
import type { Position } from '../../src/change/position.ts';
import type { OutgoingRecord } from '../../src/topic/log.ts';
import { decodeFramed, encodeFramed, readSchemaId } from '../../src/topic/records/avro-codec.ts';
import { RecordEncoder } from '../../src/topic/records/encoder.ts';
import { fixedSchemas } from '../../src/topic/records/fixed-schemas.ts';
import { type SchemaRecord, schemaParts } from '../../src/topic/records/schema-record.ts';
import { at, beginOf, lsn, place, pointOf, shapeOf } from '../support/builders.ts';

export type GoldenCase =
  | { readonly kind: 'change'; readonly change: Change; readonly position: Position }
  | { readonly kind: 'point'; readonly point: Point; readonly unused?: UnusedFields }
  | { readonly kind: 'epoch'; readonly begin: EpochBegin }
  | { readonly kind: 'fence'; readonly epoch: number }
  | { readonly kind: 'schema'; readonly record: SchemaRecord }
  | { readonly kind: 'sequence'; readonly sequences: readonly SequencePosition[] };

/** Fields of a point in format 1 that a reader must take and ignore, whatever they hold. */
interface UnusedFields {
  readonly settled: object;
  readonly rowCounts: object;
  readonly schemaOffset: number;
}

export const commitTimeMicros = 1_763_700_000_123_456n;

const every = shapeOf(
  'public.every_type',
  'id bigint',
  'b boolean',
  'i2 smallint',
  'i8 bigint',
  'o oid',
  'f4 real',
  'f8 double precision',
  'd date',
  'ts timestamp without time zone',
  'tz timestamp(3) with time zone',
  'u uuid',
  'raw bytea',
  'n numeric(10,2)',
  'j jsonb',
);

/** Two identity columns, not in the order of the columns; names that Avro cannot hold. */
const odd: RelationShape = {
  ...shapeOf('public.order "lines"#2', 'größe numeric', 'order-id uuid', '__proto__ text'),
  schema: 'public',
  name: 'order "lines"',
  identity: ['order-id', 'größe'],
};

const uuid = '0b9d1b5e-6f0c-4f0a-9a51-0c6c4c8d2e11';
const full = [
  ...['9223372036854775807', 't', '-32768', '-9223372036854775808', '4294967295', '1.5'],
  ...['-0', '0044-03-15 BC', '1969-12-31 23:59:59.999999', '2025-11-21 04:40:00.123+00'],
  ...[uuid, '\\x00ff', '1.00', '{"a": "ä🐘"}'],
];
const nulls = ['-1', ...new Array<null>(13).fill(null)];

function row(ordinal: number, change: Partial<Change>): GoldenCase {
  const plain = { kind: 'row', op: 'c', relation: every, identity: ['1'], values: null, was: null };
  return {
    kind: 'change',
    change: { ...plain, unchanged: [], ...change } as Change,
    position: place(3, 0x16b3748, ordinal),
  };
}

const moved = { relation: odd, identity: [uuid, '1.00'] } as const;

export const cases: Readonly<Record<string, GoldenCase>> = {
  'insert of every type': row(0, { op: 'c', identity: [full[0] ?? ''], values: full }),
  'update to NULLs': row(1, { op: 'u', identity: ['-1'], values: nulls }),
  delete: row(2, { op: 'd', identity: ['42'] }),
  'read of a row that existed': row(3, { op: 'r', identity: ['-1'], values: nulls }),
  'key change, the old key': row(4, { op: 'd', relation: odd, identity: [uuid, '1.0'] }),
  'key change, the new row': row(5, {
    ...moved,
    op: 'u',
    values: ['1.00', uuid, 'ü"\n'],
    was: [uuid, '1.0'],
  }),
  relation: row(6, { kind: 'relation', relation: every }),
  'relation with odd names, dropped': row(7, {
    kind: 'relation',
    relation: {
      ...odd,
      dropped: true,
      columns: odd.columns.map((column) => ({ ...column, nullable: false, missing: 'none' })),
    },
  }),
  truncate: row(8, { kind: 'truncate', relation: odd }),
  reread: row(9, { kind: 'reread', relation: odd }),
  'first epoch begin': { kind: 'epoch', begin: beginOf({ startLsn: lsn(0x1000) }) },
  'epoch begin with a base': {
    kind: 'epoch',
    begin: beginOf({ epoch: 2, base: at(1, 0x16b3748), startLsn: lsn(0x2_0000_0001), leader: 'b' }),
  },
  'idle point': {
    kind: 'point',
    point: pointOf({
      epoch: 3,
      upto: lsn(0x16b3780),
      counts: [0, 0, 0, 0],
      previous: { at: at(3, 0x16b3700), nextOffsets: [1n, 2n, 3n, 4n] },
    }),
  },
  'named point with everything': {
    kind: 'point',
    point: pointOf({
      label: 'before-migration-7',
      epoch: 3,
      commit: lsn(0x16b3748),
      upto: lsn(0x16b3780),
      commitTimeMicros,
      counts: [1, 20, 300, 4_000_000],
      previous: { at: at(2, 0x16b3700), nextOffsets: [1n, 2n ** 53n + 1n, 2n ** 62n, 0n] },
      unfinished: [
        {
          relation: 'public.every_type',
          after: ['1.00', 'é'],
          rows: 2 ** 40,
          estimate: 5e6,
          since: 1e12,
        },
        { relation: 'public.order "lines"#2', after: null, rows: 0, estimate: null, since: null },
      ],
      uncovered: ['public.no_key'],
      unhealed: { at: at(2, 0x16b2000), nextOffsets: [5n, 4n, 3n, 2n] },
    }),
    unused: {
      settled: { at: '2:0/16B3000', nextOffsets: [9, 8, 7, 6] },
      rowCounts: { 'public.every_type': 17, 'public.order "lines"#2': 0 },
      schemaOffset: 12,
    },
  },
  fence: { kind: 'fence', epoch: 3 },
  'update that leaves large values out': row(9, {
    ...moved,
    op: 'u',
    values: ['1.00', uuid, null],
    unchanged: ['__proto__ ü'],
  }),
  schema: {
    kind: 'schema',
    record: {
      streamId: '0b9d1b5e-6f0c-4f0a-9a51-0c6c4c8d2e11',
      at: at(3, 0x16b3748),
      schema: {
        serverVersion: 150018,
        preData: ['CREATE SCHEMA "grö""ße"', 'CREATE TABLE t ()'],
        postData: ["COMMENT ON TABLE t IS 'a;\n🐘'"],
        relations: [odd],
      },
    },
  },
  sequence: {
    kind: 'sequence',
    sequences: [
      {
        schema: 'public',
        name: 'order "lines"_seq',
        lastValue: 9_223_372_036_854_775_807n,
        isCalled: true,
      },
      { schema: 'größe', name: 'down', lastValue: -7n, isCalled: false },
    ],
  },
};

/** The bytes in hex, keys and headers in the order in which they are written. */
export interface GoldenRecord {
  readonly partition: number;
  readonly key: string;
  readonly value: string | null;
  readonly headers: Readonly<Record<string, string>>;
}

export interface GoldenFile {
  readonly topic: string;
  /** In the order of their ids, which begin at 1. */
  readonly schemas: readonly { readonly subject: string; readonly schema: object }[];
  /** By case, then by the number of partitions. */
  readonly records: Readonly<Record<string, Readonly<Record<string, readonly GoldenRecord[]>>>>;
}

export const topic = 'shop.changes';
const partitionCounts = [1, 4] as const;

/** All cases as this version writes them; schemas get ids in the order in which they are asked. */
export async function encodeAll(): Promise<GoldenFile> {
  const schemas: { subject: string; schema: object }[] = [];
  const registry = {
    register: async (subject: string, schema: object): Promise<number> => {
      const known = schemas.findIndex((entry) => entry.subject === subject);
      return known >= 0 ? known + 1 : schemas.push({ subject, schema });
    },
  };
  const records: Record<string, Record<string, readonly GoldenRecord[]>> = {};
  for (const partitions of partitionCounts) {
    const encoder = await RecordEncoder.open({ topic, partitions, registry });
    await encoder.prepare(every);
    await encoder.prepare(odd);
    for (const [name, golden] of Object.entries(cases)) {
      const encoded = await encode(encoder, golden);
      records[name] = { ...records[name], [partitions]: encoded.map(inHex) };
    }
  }
  return { topic, schemas, records };
}

async function encode(encoder: RecordEncoder, golden: GoldenCase): Promise<OutgoingRecord[]> {
  switch (golden.kind) {
    case 'change':
      return encoder.encode(golden.change, golden.position, commitTimeMicros);
    case 'point':
      return encoder.encodePoint(golden.point).map((record) => filled(record, golden.unused));
    case 'epoch':
      return encoder.encodeEpochBegin(golden.begin, commitTimeMicros);
    case 'fence':
      return encoder.encodeFence(golden.epoch, commitTimeMicros);
    case 'schema':
      return encoder.encodeSchema(schemaParts(golden.record), [], commitTimeMicros);
    case 'sequence':
      return encoder.encodeSequences(golden.sequences, at(3, 0x16b3748), commitTimeMicros);
  }
}

/** The point as a version would write it that used these fields. */
function filled(record: OutgoingRecord, unused: UnusedFields | undefined): OutgoingRecord {
  if (unused === undefined || record.value === null) return record;
  const { type } = fixedSchemas.point;
  const avro = { ...(decodeFramed(type, record.value) as object), ...unused };
  return { ...record, value: encodeFramed(readSchemaId(record.value), type, avro) };
}

function inHex({ partition, key, value, headers }: OutgoingRecord): GoldenRecord {
  return {
    partition,
    key: key.toString('hex'),
    value: value === null ? null : value.toString('hex'),
    headers,
  };
}
