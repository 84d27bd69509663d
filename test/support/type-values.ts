/**
 * The types of the type matrix, with values at their edges. Data only: each value is the text that
 * Postgres reads for the type. Flows out to tests that send every value of every type, alone, in
 * arrays and as keys, between servers of several versions.
 */

export interface TypeValue {
  readonly text: string;
  /** The first major version that has the value. */
  readonly since: number;
}

export interface MatrixType {
  /** As SQL writes it, found by any search_path. */
  readonly type: string;
  readonly values: readonly TypeValue[];
  /** Has a default order and equality, so that it can be a primary key. */
  readonly isKey: boolean;
  readonly hasArray: boolean;
  /** What the binary form holds is the same on every server: no OID of the database's own. */
  readonly hasBinary: boolean;
  /** Runs only where this extension, or this build option, is there. */
  readonly needs: string | null;
  /** The Avro type of a column of the type, as docs/types.md says. */
  readonly avro: string;
}

type Facts = Partial<Omit<MatrixType, 'type' | 'values'>>;
type ValueText = string | TypeValue;

function entry(type: string, values: readonly ValueText[], facts: Facts = {}): MatrixType {
  return {
    type,
    values: values.map((value) => {
      return typeof value === 'string' ? { text: value, since: 0 } : value;
    }),
    isKey: facts.isKey ?? true,
    hasArray: facts.hasArray ?? true,
    hasBinary: facts.hasBinary ?? true,
    needs: facts.needs ?? null,
    avro: facts.avro ?? 'string',
  };
}

function since(major: number, text: string): TypeValue {
  return { text, since: major };
}

const noKey = { isKey: false };
/** Their binary form is the OID of what they name. */
const named = { hasBinary: false };

const thousandDigits = `${'1234567890'.repeat(50)}.${'0987654321'.repeat(50)}`;

/** Every plane, a sequence that joins, and letters that normalisation would change. */
const unicode = [
  'a\u0301 \u00e1 \u212b \ufb01',
  '\u{1F9D1}\u200D\u{1F680} \u{1D400} \u{2A6D6} \u{3134A}',
  '\u{40000} \u{50000} \u{60000} \u{70000} \u{80000} \u{90000} \u{A0000} \u{B0000}',
  '\u{C0000} \u{D0000} \u{E0001} \u{F0000} \u{10FFFF} \uFFFF \uFFFE \uFFFD \uFEFF',
];
const texts = [
  ...['', ' ', 'a', 'A', 'NULL', 'null', '\\N', '{}', '{NULL}', '"', "'", '\\', ',', ' x ', 'a b'],
  ...['\t\n\r\b\f\u0001\u007f\u0085\u2028', '$1', 't', '0', '-0', "it''s", 'C:\\path\\', '\\x00'],
  ...unicode,
];

const numbers: readonly MatrixType[] = [
  entry('boolean', ['true', 'false'], { avro: 'boolean' }),
  entry('smallint', ['0', '1', '-1', '32767', '-32768'], { avro: 'int' }),
  entry('integer', ['0', '-1', '2147483647', '-2147483648'], { avro: 'int' }),
  entry(
    'bigint',
    [
      ...['0', '-1', '9007199254740991', '9007199254740992', '9007199254740993'],
      ...['-9007199254740993', '9223372036854775807', '-9223372036854775808', '1125899906842624'],
      // A number with all of its 53 bits, whose double and one is not.
      '-9007199254740991',
    ],
    { avro: 'long' },
  ),
  entry('oid', ['0', '1', '4294967295', '2147483648'], { avro: 'long' }),
  entry(
    'real',
    [
      ...['0', '-0', 'NaN', 'Infinity', '-Infinity', '1e-45', '1.17549435e-38', '3.4028235e38'],
      ...['0.1', '16777217', '1e6', '999999.94', '1.5e-5', '8388608.5'],
    ],
    { avro: 'float' },
  ),
  entry(
    'double precision',
    [
      ...['0', '-0', 'NaN', 'Infinity', '-Infinity', '4.9e-324', '2.2250738585072014e-308'],
      ...['1.7976931348623157e308', '0.1', '0.30000000000000004', '9007199254740993', '1e15'],
      ...['1e-5', '123456789012345680000', '-1e-310', '9.5367431640625e-07'],
    ],
    { avro: 'double' },
  ),
  entry('numeric', [
    ...['0', '0.000', '-0.0', '1', '1.0', '1.00', '-1.50', 'NaN', 'Infinity', '-Infinity'],
    ...[thousandDigits, `-${thousandDigits}`, '1e-400', '1e400', '10000', '0.0001'],
  ]),
  entry('numeric(20,5)', ['0', '1.5', '-99999999999999.99999', 'NaN']),
  entry('numeric(3,-2)', ['0', '12300', '-99900']),
  entry('numeric(2,4)', ['0', '0.0012', '-0.0099']),
  entry('money', ['0', '0.01', '-0.01', '92233720368547758.07', '-92233720368547758.08']),
];

const strings: readonly MatrixType[] = [
  entry('text', texts),
  entry('character varying', texts),
  entry('character varying(9)', ['', 'a', 'nine char', '   ', 'ä\u{1F600}']),
  entry('character(7)', ['', 'a', 'ab  ', 'seven77', '  x', '\u{1F600}']),
  entry('character', ['', 'a', 'é']),
  entry('name', ['', 'select', 'a"b', 'n'.repeat(63)]),
  entry('"char"', ['', 'a', ' ', '\\303', '\\001', '\\']),
  entry('bytea', ['\\x', '\\x00', '\\x0000', '\\x00010203ff5c27', '\\xdeadbeef'], {
    avro: 'bytes',
  }),
  entry('bit(5)', ['00000', '10101', '11111']),
  entry('bit varying', ['', '0', '1', '0000000000000000000001', '1'.repeat(70)]),
  entry('bit varying(8)', ['', '1', '10000000']),
  entry('uuid', ['00000000-0000-0000-0000-000000000000', '12345678-9abc-def0-1234-56789abcdef0'], {
    avro: 'uuid',
  }),
  entry(
    'json',
    [
      ...['{"b": 1,  "b": 2, "a": "\\u00e9", "n": 1e400}', 'null', '""', ' [ ] ', '"\\u0000"'],
      ...['{"big": 123456789012345678901234567890.1230}', '{"a":\n\t1}', '-0.0', `"${unicode[1]}"`],
    ],
    noKey,
  ),
  entry('jsonb', [
    ...['{"b": 1.50, "a": [null, "x", true]}', 'null', '""', '[]', '{}', '1.0', '1.00', '-0'],
    ...['123456789012345678901234567890.1230', '"\\u0001"', `"${unicode[1]}"`, 'false'],
  ]),
  entry('jsonpath', ['$', '$.a[*] ? (@ > 1)', 'strict $."q\\"" + 1'], noKey),
  entry(
    'xml',
    [
      ...['', 'text', '<a>&lt;</a>', '<a/><b/>', '<![CDATA[x]]>', `<a b="'">${unicode[1]}</a>`],
      ...['<?xml version="1.0" standalone="yes"?><a/>', ' <a> </a> ', '<!-- c -->'],
    ],
    { isKey: false, needs: 'libxml' },
  ),
  entry('tsvector', ['', "a:1A cat:2B,3 'it''s':7", "'a b':1 'q\\\\':2", "''''", 'x']),
  entry('tsquery', ['', "'fat' & ('rat':AB | !'cat') <-> 'x y'", "a:* & 'it''s'"]),
];

const times: readonly MatrixType[] = [
  entry(
    'date',
    [
      ...['infinity', '-infinity', '4713-01-01 BC', '0044-03-15 BC', '0001-01-01', '2000-02-29'],
      ...['1969-12-31', '1970-01-01', '9999-12-31', '10000-01-01', '5874897-12-31'],
    ],
    { avro: 'date' },
  ),
  entry('time', ['00:00', '24:00', '23:59:59.999999', '00:00:00.000001', '12:30']),
  entry('time(2)', ['00:00', '24:00', '12:30:00.25']),
  entry('time with time zone', [
    ...['00:00+00', '24:00+15:59:59', '00:00-15:59:59', '12:00:00.5+05:30', '12:00-03:30'],
  ]),
  entry(
    'timestamp',
    [
      ...['infinity', '-infinity', '4713-01-01 00:00:00.000001 BC', '0044-03-15 12:00 BC'],
      ...['1969-12-31 23:59:59.999999', '1970-01-01', '2024-02-29 12:34:56.789', '9999-12-31'],
      ...['2255-06-05 23:47:34.740993', '10000-01-01 00:00:00.1', '294246-12-31 23:59:59.999999'],
    ],
    { avro: 'local-timestamp-micros' },
  ),
  entry('timestamp(0)', ['2024-01-01 12:34:56', '-infinity'], { avro: 'local-timestamp-micros' }),
  entry(
    'timestamptz',
    [
      ...['infinity', '-infinity', '4713-01-01 00:00:00+00 BC', '2024-07-01 12:00:00.000001+02'],
      ...['1969-12-31 23:59:59.999999+00', '294246-12-31 23:59:59.999999+00', '1883-11-18+05:45'],
    ],
    { avro: 'timestamp-micros' },
  ),
  entry('timestamptz(3)', ['2024-01-01 12:34:56.789+00', 'infinity'], { avro: 'timestamp-micros' }),
  entry('interval', [
    ...['0', '1 mon -1 day 00:00:01.5', '-1 mon +1 day -00:00:00.000001', '178000000 years'],
    ...['-178000000 years', '1 year -2 mons +3 days -04:05:06.789', '-00:00:00.1', '-1 year'],
    ...['2562047788:00:54.775807', '-2147483647 days', '30 days', '1 mon', '24:00:00', '1 day'],
    // As sql_standard prints it, its one sign is for both; under other styles for the days alone.
    '-3 days -04:05:06',
    ...[since(17, 'infinity'), since(17, '-infinity')],
  ]),
  entry('interval(2)', ['1.25 s', '-3 days']),
  entry('interval year to month', ['1 year 2 mons', '-5 mons']),
];

const shapes: readonly MatrixType[] = [
  entry('point', ['(0,-0)', '(1.5,-2.5)', '(NaN,Infinity)', '(1e300,4.9e-324)'], noKey),
  entry('line', ['{1,-1,0}', '{0,2.5,-0}'], noKey),
  entry('lseg', ['[(0,0),(1,1)]', '[(1,1),(1,1)]'], noKey),
  entry('box', ['(1,1),(0,0)', '(-0,0.1),(-1,-1)'], noKey),
  entry('path', ['((0,0),(1,1))', '[(0,0),(1,1),(2,0)]'], noKey),
  entry('polygon', ['((0,0),(1,1),(1,0))', '((0,0))'], noKey),
  entry('circle', ['<(0,0),5>', '<(-1.5,0),0>'], noKey),
  entry('inet', [
    ...['10.0.0.1', '::1/64', '::ffff:1.2.3.4/96', '0.0.0.0/0', '10.1.2.3/8', '2001:db8::'],
  ]),
  entry('cidr', ['10.0.0.0/8', '2001:db8::/32', '0.0.0.0/0', '::/0']),
  entry('macaddr', ['08:00:2b:01:02:03', '00:00:00:00:00:00', 'ff:ff:ff:ff:ff:ff']),
  entry('macaddr8', ['08:00:2b:01:02:03:04:05', '00:00:00:00:00:00:00:00']),
];

const ranges: readonly MatrixType[] = [
  entry('int4range', ['empty', '(,)', '[1,5)', '[5,)', '(,-3)', '[-2147483648,2147483647)']),
  entry('int8range', ['empty', '[9007199254740993,)', '(,-9223372036854775807)']),
  entry('numrange', ['empty', '[1.0,1.00]', '(1,1.50)', '[NaN,NaN]', '[,Infinity]']),
  entry('daterange', ['empty', '[2024-01-01,infinity)', '(-infinity,0044-03-15 BC)']),
  entry('tsrange', ['[2024-01-01 00:00:00.5,infinity]', '(,)', '["0044-03-15 BC",]']),
  entry('tstzrange', ['[2024-01-01 00:00+02,2024-06-01)', '(-infinity,infinity)', 'empty']),
  entry('int4multirange', ['{}', '{[1,3),[5,9)}', '{(,)}']),
  entry('int8multirange', ['{}', '{[9007199254740993,)}']),
  entry('nummultirange', ['{}', '{[1.0,1.00],(2,3.50)}']),
  entry('datemultirange', ['{}', '{[2024-01-01,2024-02-01),[2025-01-01,)}']),
  entry('tsmultirange', ['{}', '{["0044-03-15 00:00:00 BC","2024-01-01 00:00:00")}']),
  entry('tstzmultirange', ['{}', '{[2024-01-01 00:00+02,)}']),
  entry('public.texts', ['empty', '["a,b","c""d\\\\e"]', '["",]', '(" [",")\u{1F600}")']),
  entry('public.many_texts', ['{}', '{["a,b","c""}"],["x","y"]}']),
];

const systemTypes: readonly MatrixType[] = [
  entry('pg_lsn', ['0/0', 'FFFFFFFF/FFFFFFFF', '16/B374D848']),
  entry('pg_snapshot', ['10:20:10,14,15', '1:1:'], noKey),
  entry('txid_snapshot', ['10:20:10,14,15', '1:1:'], noKey),
  entry('tid', ['(0,1)', '(4294967295,65535)']),
  entry('xid', ['0', '4294967295'], noKey),
  entry('xid8', ['0', '18446744073709551615']),
  entry('cid', ['0', '4294967295'], noKey),
  entry('refcursor', ['', 'c"1'], { isKey: false, hasBinary: false }),
  // ARRAY[…] takes these two for arrays themselves.
  entry('oidvector', ['', '1 4294967295 3'], { hasArray: false }),
  entry('int2vector', ['', '1 -32768 3'], { hasArray: false }),
  entry('regclass', ['pg_class', '-', '4000000001', '"public"."Odd ""name"""'], named),
  entry('regtype', ['integer', '"char"', 'numeric[]', 'public.mood', '-'], named),
  entry('regproc', ['pg_catalog.now', '-', '4000000001'], named),
  entry('regprocedure', ['now()', 'pg_catalog.abs(numeric)'], named),
  entry('regoper', ['0', 'pg_catalog.||/'], named),
  entry('regoperator', ['+(integer,integer)', '-(none,integer)'], named),
  entry('regrole', ['pg_monitor', '-'], named),
  entry('regnamespace', ['pg_catalog', 'public', '-'], named),
  entry('regconfig', ['english', 'simple'], named),
  entry('regdictionary', ['simple', 'pg_catalog.english_stem'], named),
  entry('regcollation', ['"C"', '"default"'], named),
  entry('aclitem', ['pg_monitor=r/pg_monitor', '=U/pg_monitor'], {
    isKey: false,
    hasBinary: false,
  }),
];

/** Made by `matrixTypesSql`. */
const ownTypes: readonly MatrixType[] = [
  entry('public.mood', ['sad', 'not so sad', "happy, 'quoted'", '"', 'ж\u{1F600}']),
  entry('public.positive', ['0.10', '0.1', '1e50']),
  entry('public.short', ['', 'NULL', 'ab  ']),
  entry('public.shorter', ['', 'x']),
  // ARRAY[…] takes it for an array too.
  entry('public.ints', ['{}', '{1,NULL,3}', '{{1,2},{3,4}}', '[0:1]={7,8}'], { hasArray: false }),
  entry('public.day', ['2024-02-29', 'infinity', '0044-03-15 BC']),
  entry('public.pair_domain', ['(,)', '(1,"a,b")', '(,"")']),
  entry('public.pair', ['(,)', '(1,"a,b")', '(,"")', '(2,"q""\\\\(")', `(3,"${unicode[1]}")`]),
  entry('public.nest', ['(,,,)', '("(1,""x"")","{sad,NULL}",1.00,"{""(2,)"",NULL}")'], {
    hasBinary: false,
  }),
];

const contrib: readonly MatrixType[] = [
  entry('public.citext', ['', 'Anna', 'anna', 'BERT', 'ẞtraße'], { needs: 'citext' }),
  entry('public.loud', ['Anna', 'ANNA', 'x'], { needs: 'citext' }),
  entry('public.hstore', ['', '"a"=>"1", "b"=>NULL, "q\\""=>"=>,"', '""=>""'], {
    needs: 'hstore',
  }),
  entry('public.ltree', ['', 'Top.Science', 'Top.science', 'a.b.c'], { needs: 'ltree' }),
  entry('public.lquery', ['*.a@|b*{1,2}.!c'], { needs: 'ltree', isKey: false }),
  entry('public.ltxtquery', ['Europe & Russia*@ & !Transport'], { needs: 'ltree', isKey: false }),
  entry('public.cube', ['(1,2),(3,4)', '(-0)', '()'], { needs: 'cube' }),
  entry('public.seg', ['1', '1.0 .. 2.50', '<3', '5(+-)0.3'], { needs: 'seg' }),
  entry('public.isbn13', ['978-0-11-000533-1'], { needs: 'isn' }),
];

export const matrixTypes: readonly MatrixType[] = [
  ...numbers,
  ...strings,
  ...times,
  ...shapes,
  ...ranges,
  ...systemTypes,
  ...ownTypes,
  ...contrib,
];

/** The types that `matrixTypes` names and Postgres does not bring, for a new database. */
export function matrixTypesSql(extensions: readonly string[]): string {
  return `
    ${extensions.map((name) => `CREATE EXTENSION ${name} SCHEMA public;`).join(' ')}
    CREATE TABLE public."Odd ""name""" (id int PRIMARY KEY);
    CREATE TYPE public.mood AS ENUM ('sad', 'not so sad', 'happy, ''quoted''', '"', 'ж\u{1F600}');
    CREATE DOMAIN public.positive AS numeric CHECK (VALUE > 0);
    CREATE DOMAIN public.short AS varchar(4);
    CREATE DOMAIN public.shorter AS public.short CHECK (length(VALUE) < 2);
    CREATE DOMAIN public.ints AS int[];
    CREATE DOMAIN public.day AS date;
    CREATE TYPE public.pair AS (x int, y text);
    CREATE DOMAIN public.pair_domain AS public.pair;
    CREATE TYPE public.nest AS (p public.pair, m public.mood[], n numeric, q public.pair[]);
    CREATE TYPE public.texts AS RANGE
      (subtype = text, collation = "C", multirange_type_name = public.many_texts);
    ${extensions.includes('citext') ? 'CREATE DOMAIN public.loud AS public.citext;' : ''}`;
}
