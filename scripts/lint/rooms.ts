/**
 * The rooms of src/ and what each may import: one line for each room, from the vocabulary up to the
 * command line. A file belongs to the longest path that contains it. It may import its own room,
 * the rooms inside it that are above it in this table, and what its line names. A line names only
 * rooms that are above it, so imports point downwards and there is no cycle between rooms.
 */
import type { Room } from './judge-rooms.ts';

/** Of the logger only the type: the log itself is handed in. */
const everywhere = [
  'change',
  'redact.ts',
  'errors',
  'failpoints.ts',
  'logger.ts',
  'waiting.ts',
  'package-files.ts',
];
const log = ['catalog', 'topic'];
const nodes = [...log, 'control', 'leader', 'follower', 'lifecycle.ts', 'fleet/cluster.ts'];

function room(path: string, ...mayImport: readonly string[]): Room {
  return { path, mayImport: [...everywhere, ...mayImport] };
}

export const rooms: readonly Room[] = [
  { path: 'change', mayImport: [] },
  { path: 'redact.ts', mayImport: [] },
  { path: 'errors', mayImport: ['change'] },
  { path: 'failpoints.ts', mayImport: ['errors'] },
  { path: 'logger.ts', mayImport: ['errors', 'redact.ts', 'change'] },
  { path: 'waiting.ts', mayImport: [] },
  { path: 'package-files.ts', mayImport: [] },
  room('lifecycle.ts'),
  room('process-end.ts'),
  room('catalog/types'),
  room('catalog', 'catalog/types'),
  room('catalog/dump', 'catalog'),
  room('topic/log.ts'),
  room('topic/kafka', 'topic/log.ts'),
  room('topic/schema-registry.ts'),
  room('topic/records', 'topic/log.ts', 'topic/schema-registry.ts', 'catalog'),
  room('topic', 'catalog'),
  room('leader/stream', ...log),
  room('leader/tables', ...log, 'leader/stream'),
  room('leader/backfill', ...log, 'leader/stream', 'leader/tables'),
  room('leader', ...log),
  room('follower/state', 'topic'),
  room('follower/apply', ...log, 'follower/state'),
  room('follower/bootstrap', ...log, 'follower/state', 'follower/apply'),
  room('follower/schema', 'catalog'),
  room('follower/guard', 'catalog'),
  room('follower', ...log),
  room('verify', 'catalog'),
  room('control', 'topic'),
  room('fleet/cluster.ts', ...log, 'control', 'lifecycle.ts'),
  room('fleet/node', ...nodes),
  room('fleet/status', ...nodes, 'fleet/node'),
  room('fleet/preflight', ...nodes, 'fleet/node', 'fleet/status'),
  room('fleet/provision', ...nodes, 'fleet/node', 'fleet/status', 'fleet/preflight'),
  room('fleet/promotion', ...nodes, 'fleet/node', 'fleet/status', 'fleet/provision'),
  room(
    'fleet/operations',
    ...nodes,
    'verify',
    'fleet/node',
    'fleet/status',
    'fleet/preflight',
    'fleet/provision',
    'fleet/promotion',
  ),
  room('agent', ...nodes, 'fleet'),
  room('http', 'lifecycle.ts'),
  room('config', ...log),
  room('commands', ...nodes, 'verify', 'fleet', 'agent', 'http', 'config'),
  room('cli.ts', 'commands', 'config', 'lifecycle.ts', 'process-end.ts'),
  room('index.ts', 'topic'),
];

/** The only rooms that may import the logger itself. */
export const createTheLog = ['cli.ts', 'commands'];

/** Files below the least length, each with its reason. */
export const mayBeShort: Readonly<Record<string, string>> = {
  'errors/bug.ts': 'a family of errors is one file, however small',
};
