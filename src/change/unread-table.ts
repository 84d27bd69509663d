/**
 * A table of which every row is still to be read. Flows in: its relation id; flows out: what points
 * say of it until the first of them is. Pure.
 */
import type { RelationId, UnfinishedTable } from './change.ts';

export function unreadTable(relation: RelationId): UnfinishedTable {
  return { relation, after: null, rows: 0, estimate: null, since: null };
}
