/**
 * Facts of sound nodes, for the tests of what a preflight judges. Flows in: what is not sound of
 * one; flows out: whole facts, and short looks at findings.
 */
import * as assert from 'uvu/assert';
import type { ServerFacts } from '../../src/catalog/read-catalog.ts';
import type { TableColumn, TableShape } from '../../src/catalog/table.ts';
import type { Finding } from '../../src/fleet/preflight/finding.ts';
import type { CheckedDatabase, NodeFacts } from '../../src/fleet/preflight/read-node.ts';

export const soundServer: ServerFacts = {
  systemId: '7000000000000000001',
  timeline: 1,
  version: 150_018,
  walLevel: 'logical',
  inRecovery: false,
  maxSlots: 10,
  usedSlots: 0,
  maxWalSenders: 10,
  databaseEncoding: 'UTF8',
  database: 'shop',
  currentUser: 'agent',
  isSuperuser: true,
  canReplicate: true,
  canSetReplicaRole: true,
};

const soundDatabase: CheckedDatabase = {
  oid: 16_384,
  serverStartedAt: '2026-01-01 00:00:00+00',
  collate: 'C',
  ctype: 'C',
  provider: 'c',
  locale: null,
  ownsDatabase: true,
  canCreate: true,
  readsAllStats: true,
  bypassesRowSecurity: true,
  foreignWalSenders: 0,
  hasOwnSlot: false,
  slotKeepBytes: 100 * 1024 ** 3,
  maxWalBytes: 1024 ** 3,
  slotIdleTimeout: null,
  preparedTransactions: [],
  closedSequences: [],
  notOwned: [],
  forcedRowSecurity: [],
  generated: [],
  firingTriggers: [],
};

export interface Changes {
  readonly name?: string;
  readonly server?: Partial<ServerFacts>;
  readonly database?: Partial<CheckedDatabase>;
  readonly node?: Partial<NodeFacts>;
  readonly tables?: readonly TableShape[];
}

export function node({
  name = 'a',
  server,
  database,
  node: rest,
  tables = [],
}: Changes = {}): NodeFacts {
  return {
    name,
    server: { ...soundServer, ...server },
    database: { ...soundDatabase, ...database },
    canCreateEventTriggers: true,
    identity: null,
    reached: {
      ...{ systemId: soundServer.systemId, oid: '16384', name: 'shop', address: 'a:5432' },
      ...{ startedAt: '1', present: new Set(['16384']), replaces: null },
    },
    idleSlots: [],
    streamed: null,
    types: {},
    allTables: tables,
    matchedTables: tables,
    keys: new Map(),
    ...rest,
  };
}

export function column(attnum: number, name: string, more: Partial<TableColumn> = {}): TableColumn {
  const plain = {
    type: 'text',
    typeOid: 25,
    typeModifier: -1,
    notNull: false,
    generated: 'no',
    identity: 'no',
  };
  return { attnum, name, ...plain, ...more } as TableColumn;
}

export function table(more: Partial<TableShape> = {}): TableShape {
  return {
    oid: 20_000,
    schema: 'public',
    name: 'orders',
    kind: 'ordinary',
    persistence: 'permanent',
    isPartition: false,
    parentOid: null,
    columns: [column(1, 'id', { type: 'bigint', notNull: true }), column(2, 'body')],
    uniqueIndexes: [],
    replicaIdentity: 'default',
    identityAttnums: [1],
    ...more,
  };
}

export function codes(findings: readonly Finding[]): string[] {
  return findings.map(({ code }) => code);
}

export function only(findings: readonly Finding[]): Finding {
  assert.is(findings.length, 1, JSON.stringify(findings));
  return findings[0] as Finding;
}
