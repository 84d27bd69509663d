/**
 * What a preflight makes of nodes and their tables, without servers: facts flow in, and each cause
 * is one finding with the SQL that mends it.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { ServerFacts } from '../../src/catalog/read-catalog.ts';
import { judgeFollowerTables } from '../../src/fleet/preflight/judge-copies.ts';
import {
  judgeLeaderTables,
  judgeLocales,
  judgePatterns,
  judgeServers,
} from '../../src/fleet/preflight/judge-fleet.ts';
import { judgeNode, judgeVersion } from '../../src/fleet/preflight/judge-server.ts';
import { type Changes, codes, node, only, soundServer, table } from '../support/node-facts.ts';

test('a sound node, and two of them on servers of their own, give no finding', () => {
  assert.equal(judgeNode(node(), 'shop'), []);
  const other = node({ name: 'b', server: { systemId: '7000000000000000002' } });
  assert.equal(judgeServers([node(), other]), []);
  assert.equal(judgeLocales(node(), [other]), []);
});

const serverCauses: readonly [string, Changes, RegExp, RegExp][] = [
  ['a standby', { server: { inRecovery: true } }, /in recovery/, /promote/],
  ['wal_level', { server: { walLevel: 'replica' } }, /replica/, /SET wal_level = logical/],
  ['no slot free', { server: { usedSlots: 10 } }, /10 of 10/, /max_replication_slots = 14/],
  [
    'no WAL sender free',
    { database: { foreignWalSenders: 10 } },
    /10 of 10/,
    /max_wal_senders = 14/,
  ],
  ['bytes without encoding', { server: { databaseEncoding: 'SQL_ASCII' } }, /SQL_ASCII/, /UTF8/],
  ['letters of two spellings', { server: { databaseEncoding: 'EUC_TW' } }, /EUC_TW/, /UTF8/],
  [
    'slots that are invalidated soon',
    { database: { slotKeepBytes: 1024 ** 3 - 1 } },
    /less than max_wal_size \(1\.0 GB\)/,
    /max_slot_wal_keep_size = '100GB'/,
  ],
  [
    'slots that fill the disk',
    { database: { slotKeepBytes: null } },
    /not set.*may fill its disk/,
    /max_slot_wal_keep_size = '100GB'/,
  ],
  ['idle slots that expire', { database: { slotIdleTimeout: '1d' } }, /1d/, /timeout = 0/],
  [
    'prepared transactions',
    { database: { preparedTransactions: ['x1'] } },
    /x1/,
    /ROLLBACK PREPARED/,
  ],
  [
    'sequences that the role may not read or set',
    { database: { closedSequences: ['public.s', 'public.t'] } },
    /may not read or set sequences: public\.s, public\.t/,
    /GRANT SELECT, UPDATE ON ALL SEQUENCES/,
  ],
];

for (const [name, changes, message, hint] of serverCauses) {
  test(`one finding for ${name}`, () => {
    const finding = only(judgeNode(node(changes), 'shop'));
    assert.match(finding.message, message);
    assert.match(finding.hint, hint);
    assert.is(finding.object, 'node a');
  });
}

test('the slot of our own does not take the room it has', () => {
  const full = { server: { usedSlots: 10 }, database: { hasOwnSlot: true } };
  assert.equal(judgeNode(node(full), 'shop'), []);
});

test('idle_replication_slot_timeout = 0 is no limit', () => {
  assert.equal(judgeNode(node({ database: { slotIdleTimeout: '0' } }), 'shop'), []);
});

test('of an old server the version is named', () => {
  const finding = judgeVersion('a', { ...soundServer, version: 140_011 });
  assert.match(finding.message, /PostgreSQL 14; 15 or later/);
});

const ordinary: Partial<ServerFacts> = { isSuperuser: false };
const permissionCauses: readonly [string, Changes, RegExp][] = [
  ['event triggers', { node: { canCreateEventTriggers: false } }, /ALTER ROLE "agent" SUPERUSER/],
  ['replication', { server: { canReplicate: false } }, /ALTER ROLE "agent" REPLICATION;/],
  ['the replica role', { server: { canSetReplicaRole: false } }, /GRANT SET ON PARAMETER/],
  ['creating', { database: { canCreate: false } }, /GRANT CREATE ON DATABASE "shop" TO "agent"/],
  ['the database', { database: { ownsDatabase: false } }, /ALTER DATABASE "shop" OWNER TO "agent"/],
  ['statistics', { database: { readsAllStats: false } }, /GRANT pg_read_all_stats TO "agent"/],
  [
    'ownership',
    { database: { notOwned: [{ table: 'public.t', owner: '"App"' }] } },
    /GRANT "App" TO "agent"/,
  ],
  [
    'row security',
    { database: { forcedRowSecurity: ['public.t'], bypassesRowSecurity: false } },
    /ALTER ROLE "agent" BYPASSRLS/,
  ],
];

for (const [name, changes, hint] of permissionCauses) {
  test(`the permission for ${name} is asked for by itself, and never of a superuser`, () => {
    const asked = { ...changes, server: { ...ordinary, ...changes.server } };
    assert.match(only(judgeNode(node(asked), 'shop')).hint, hint);
    assert.equal(judgeNode(node(changes), 'shop'), []);
  });
}

test('the database of another cluster or another node is refused', () => {
  const identity = {
    ...{ cluster: 'shop', name: 'a', streamId: 's', epoch: 1, startNumber: 1n },
    role: 'leader',
  } as const;
  assert.equal(judgeNode(node({ node: { identity } }), 'shop'), []);
  for (const other of [{ cluster: 'bar' }, { name: 'b' }]) {
    const changed = node({ node: { identity: { ...identity, ...other } } });
    assert.equal(codes(judgeNode(changed, 'shop')), ['ALREADY_INITIALISED']);
  }
});

test('two nodes are one database, share a server, or are copies', () => {
  const same = judgeServers([node(), node({ name: 'b' })]);
  assert.match(only(same).message, /the same database/);
  assert.is(only(same).severity, 'error');
  const shared = judgeServers([node(), node({ name: 'b', database: { oid: 2 } })]);
  assert.equal(codes(shared), ['SHARED_SERVER']);
  const copy = judgeServers([node(), node({ name: 'b', database: { serverStartedAt: 'later' } })]);
  assert.equal(codes(copy), ['SYSTEM_ID_COPIED']);
});

test('a follower with another locale or a narrower encoding is warned of', () => {
  const follower = node({
    name: 'b',
    server: { databaseEncoding: 'LATIN1' },
    database: { collate: 'de_DE' },
  });
  assert.equal(codes(judgeLocales(node(), [follower])), ['LOCALE_DIFFERS', 'ENCODING_DIFFERS']);
  const wider = node({ name: 'b' });
  const latin = node({ server: { databaseEncoding: 'LATIN1' } });
  assert.equal(judgeLocales(latin, [wider]), []);
});

test('tables without identity are errors with their SQL; none at all is a warning', () => {
  assert.equal(codes(judgePatterns(node(), ['public.*'], true)), ['NO_TABLES']);
  const keyless = node({ tables: [table({ identityAttnums: null })] });
  const finding = only(judgeLeaderTables(keyless));
  assert.is(finding.code, 'TABLE_UNSUPPORTED');
  assert.match(finding.hint, /ALTER TABLE "public"."orders" ADD COLUMN "id_2" bigint/);
});

test('an unlogged table is reported as not replicated, and no follower needs it', () => {
  const leader = node({ tables: [table({ persistence: 'unlogged' })] });
  assert.equal(codes(judgeLeaderTables(leader)), ['TABLE_UNLOGGED']);
  assert.equal(judgeFollowerTables(leader, node({ name: 'b' })), []);
});

test('a table created after init is reported as not in the stream; no follower needs it', () => {
  const partition = table({ oid: 3, name: 'orders_2027', isPartition: true });
  const tables = [table(), table({ oid: 2, name: 'later' }), partition];
  const leader = node({ tables, node: { streamed: new Set([20_000]) } });
  const finding = only(judgeLeaderTables(leader));
  assert.is(finding.code, 'NOT_IN_STREAM');
  assert.is(finding.object, 'public.later');
  const lacking = only(judgeFollowerTables(leader, node({ name: 'b', tables: [table()] })));
  assert.is(lacking.message, 'node b lacks the table public.orders_2027');
});

test('missing tables are one finding per node', () => {
  const leader = node({ tables: [table(), table({ oid: 2, name: 'Items' })] });
  const finding = only(judgeFollowerTables(leader, node({ name: 'b' })));
  assert.is(finding.code, 'SCHEMA_DIFFERS');
  assert.match(finding.message, /node b lacks tables: public.orders, public.Items/);
  assert.match(finding.hint, /-t 'public.orders' -t 'public."Items"'/);
});

test('a pattern that matches no table is a warning, and refused before the cluster exists', () => {
  const leader = node({ tables: [table()] });
  assert.equal(judgePatterns(leader, ['public.*', 'public.orders'], false), []);
  const misspelt = only(judgePatterns(leader, ['public.*', 'public.oders'], true));
  assert.is(misspelt.code, 'PATTERN_UNMATCHED');
  assert.is(misspelt.message, 'no table of node a matches public.oders');
  const refused = only(judgePatterns(leader, ['public.oders', 'public.orders'], false));
  assert.equal([refused.severity, refused.code], ['error', 'PREREQUISITE']);
  assert.is(only(judgePatterns(node(), ['*.*'], false)).severity, 'error');
});

test.run();
