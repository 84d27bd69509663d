/**
 * GET /readyz: whether each node that this process serves is in its role, leading and streaming or
 * following and reading. It takes the figures of the agents, which cost no query, and gives one
 * answer with a reason for each node that is not. A server that stops answering is noticed by how
 * long the agent has waited for it, before its connection counts as lost. Pure.
 */
import type { NodeFigures } from './metrics.ts';

interface NodeReadiness {
  readonly node: string;
  readonly role: 'leader' | 'follower' | null;
  readonly ready: boolean;
  /** null where it is ready. */
  readonly reason: string | null;
}

export interface Readiness {
  readonly ready: boolean;
  readonly nodes: readonly NodeReadiness[];
}

/** A broker answers a fetch within a second, also when it has no records. */
const kafkaPatienceMs = 10_000;
/** The node is polled every 5 s, and a poll may take 10 s. */
const postgresPatienceMs = 20_000;

export function readinessOf(nodes: readonly NodeFigures[], isStopping: boolean): Readiness {
  const judged = nodes.map((figures): NodeReadiness => {
    const reason = isStopping ? 'the process is stopping' : whyNotReady(figures);
    return { node: figures.node, role: figures.role, ready: reason === null, reason };
  });
  return { ready: judged.every(({ ready }) => ready), nodes: judged };
}

function whyNotReady(figures: NodeFigures): string | null {
  const { role, lastFailure, slot, kafkaWaitMs, postgresWaitMs } = figures;
  if (role === null) {
    if (lastFailure === null) return 'its agent is starting';
    return `its agent neither leads nor follows since ${lastFailure.code}: ${lastFailure.message}`;
  }
  if (role === 'leader' && slot?.isLost === true) {
    return 'its replication slot is lost: its writes are not published';
  }
  if (kafkaWaitMs !== null && kafkaWaitMs > kafkaPatienceMs) {
    return `Kafka has not answered for ${Math.round(kafkaWaitMs / 1000)} s`;
  }
  if (postgresWaitMs !== null && postgresWaitMs > postgresPatienceMs) {
    return `its Postgres has not answered for ${Math.round(postgresWaitMs / 1000)} s`;
  }
  return null;
}
