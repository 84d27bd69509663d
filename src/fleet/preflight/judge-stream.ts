/**
 * Judges whether topics and databases belong together, once a cluster has been created: topics that
 * are gone, databases of another stream, databases from which a node is not served. One finding per
 * cause; what is wrong with a database alone is judged elsewhere. Pure.
 */
import { ownerOf } from '../../control/claim.ts';
import type { ControlState } from '../../control/control-state.ts';
import {
  clusterElsewhere,
  controlLogUnreadable,
  initUnfinished,
  topicsGone,
} from '../../errors/cluster.ts';
import { controlTopic } from '../../topic/records/layout.ts';
import { judgeBelonging, nodesOfStream } from '../node/judge-belonging.ts';
import { placeOf } from '../node/judge-database.ts';
import type { TopicsFacts } from '../node/stream-facts.ts';
import { leftSlotText } from '../status/retained-wal.ts';
import { type Finding, findingOf, warningFinding } from './finding.ts';
import { nodeObject } from './judge-server.ts';
import type { NodeFacts } from './read-node.ts';

type JudgedNode = Pick<NodeFacts, 'name' | 'identity' | 'reached' | 'idleSlots'>;

export function judgeStream(
  cluster: string,
  topic: string,
  topics: TopicsFacts,
  nodes: readonly JudgedNode[],
  named: readonly string[],
): Finding[] {
  const { changes, control, state, unreadable } = topics;
  const own = nodes.flatMap(({ name, identity }) => {
    return identity?.cluster === cluster && identity.name === name ? [identity] : [];
  });
  const [known] = own;
  if (unreadable !== null) {
    // Another number of partitions is a finding of its own.
    if (control?.partitions !== 1) return [];
    return [findingOf(controlLogUnreadable(cluster, unreadable), controlTopic(cluster))];
  }
  const hasStream = changes !== null && control !== null && state?.stream != null;
  if (known !== undefined && !hasStream) {
    // No agent has ever served a node of it.
    const wasUsed = own.some(({ startNumber }) => startNumber > 0n) || !topics.isEmpty;
    const error = wasUsed
      ? topicsGone(cluster, known.name, known.streamId)
      : initUnfinished(cluster);
    return [findingOf(error, topic)];
  }
  if (state === null || state.stream === null) return [];
  const judged = nodes.map((node) => ({
    ...node,
    belonging: judgeBelonging(cluster, node, state),
  }));
  const isElsewhere = judged.every(({ belonging }) => belonging.kind !== 'member');
  // Of a node that was not reached it is not known.
  if (isElsewhere && nodes.length === named.length) return [elsewhere(cluster, topic, state)];
  const foreign = judged.flatMap(({ name, identity, belonging }) => {
    // The database of another node is a finding of its own.
    const isOther = identity !== null && !own.includes(identity);
    if (isOther || belonging.kind !== 'foreign') return [];
    return [findingOf(belonging.error, nodeObject(name))];
  });
  const leader = ownerOf(state)?.node ?? null;
  return [...foreign, ...judgeAbsent(state, named), ...judgeLeftSlots(leader, nodes)];
}

function elsewhere(cluster: string, topic: string, state: ControlState): Finding {
  const leader = ownerOf(state)?.node ?? null;
  const served = placeOf(state.starts.get(leader ?? '') ?? null);
  const stream = state.stream?.streamId ?? '';
  return findingOf(clusterElsewhere(cluster, stream, leader, served), topic);
}

/** Nodes of the stream that understudy.yaml does not name. */
function judgeAbsent(state: ControlState, named: readonly string[]): Finding[] {
  const absent = nodesOfStream(state).filter((name) => !named.includes(name));
  return absent.map((name) =>
    warningFinding(
      'NODE_NOT_NAMED',
      nodeObject(name),
      `node ${name} belongs to the stream, and understudy.yaml does not name it`,
      `Name it in nodes; then, if it is out of use for good: \`understudy detach ${name}\``,
    ),
  );
}

/** Nothing reads the slot of a node that led before, whether it has another database now or not. */
function judgeLeftSlots(leader: string | null, nodes: readonly JudgedNode[]): Finding[] {
  const seen = new Set<string>();
  return nodes.flatMap(({ name, reached, idleSlots }) => {
    const left = idleSlots.filter((slot) => {
      const user = nodes.find((one) => {
        const { systemId } = one.reached;
        return systemId === reached.systemId && one.reached.name === slot.database;
      });
      const key = `${reached.systemId} ${slot.name}`;
      const isNew = !seen.has(key);
      seen.add(key);
      // A follower's agent drops what a promotion that failed has left.
      return (
        isNew && (user === undefined || (user.identity?.role === 'leader' && user.name !== leader))
      );
    });
    return left.map((slot) =>
      warningFinding(
        'SLOT_LEFT',
        nodeObject(name),
        `node ${name}: ${leftSlotText(slot)}`,
        'Save what only that database holds, then drop it, or: ' +
          `\`SELECT pg_drop_replication_slot('${slot.name}');\``,
      ),
    );
  });
}
