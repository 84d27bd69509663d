/**
 * Judges what `destroy` may remove. It takes what was found of the cluster, and gives the stream,
 * the databases that belong to it, and every reason why the stream has to be named: what
 * understudy.yaml leads to is not the whole stream, or not only that. Pure.
 */
import { formatEpochLsn } from '../../change/position.ts';
import { ownerOf } from '../../control/claim.ts';
import {
  needsStreamId,
  recordsOfNoStream,
  severalStreams,
  wrongStreamId,
} from '../../errors/belonging.ts';
import { type FoundDatabase, judgeBelonging, nodesOfStream } from '../node/judge-belonging.ts';
import type { TopicsFacts } from '../node/stream-facts.ts';

export interface FoundNode {
  readonly name: string;
  /** null where its server cannot be reached, or the database cannot be judged: `problem` says. */
  readonly database: FoundDatabase | null;
  readonly problem: string | null;
}

interface DestroyFacts {
  readonly cluster: string;
  readonly topic: string;
  readonly topics: TopicsFacts;
  /** The nodes of understudy.yaml. */
  readonly nodes: readonly FoundNode[];
}

export interface DestroyPlan {
  /** null where there is none: nothing, or the topics of an init that did not end. */
  readonly stream: string | null;
  readonly leader: string | null;
  readonly lastPoint: string | null;
  /** When the last transaction of it was committed; null where none is known. */
  readonly lastCommitMs: number | null;
  /** Nodes whose databases are cleaned. */
  readonly members: readonly string[];
  /** Why the stream has to be named; none where `--yes` is enough. */
  readonly reasons: readonly string[];
}

/** `named` is the stream that the user names; null where none is named. */
export function judgeDestroy(facts: DestroyFacts, named: string | null): DestroyPlan {
  const { cluster, topics, nodes } = facts;
  const { state, last } = topics;
  const judged = nodes.map(({ name, database, problem }) => ({
    name,
    problem,
    belonging: database === null ? null : judgeBelonging(cluster, database, state),
    identity: database?.identity ?? null,
  }));
  const ofTopics = state?.stream?.streamId ?? null;
  const ofDatabases = judged.flatMap(({ name, identity }) => {
    const isNode = identity?.cluster === cluster && identity.name === name;
    return isNode ? [identity.streamId] : [];
  });
  const known = [...new Set(ofTopics === null ? ofDatabases : [ofTopics])];
  if (named !== null && !known.includes(named)) throw wrongStreamId(cluster, named);
  if (named === null && known.length > 1) throw severalStreams(cluster, known);
  const stream = named ?? known[0] ?? null;
  if (stream === null && !topics.isEmpty) throw recordsOfNoStream(facts.topic);
  // A copy of a node’s database holds objects of ours too; of another stream it holds none.
  const members = judged.filter(({ name, identity }) => {
    const isNode = identity?.cluster === cluster && identity.name === name;
    return isNode && identity.streamId === stream;
  });
  return {
    stream,
    leader: state === null ? null : (ownerOf(state)?.node ?? null),
    lastPoint: last === null ? null : formatEpochLsn(last.at),
    lastCommitMs: last?.commitMs ?? null,
    members: members.map(({ name }) => name),
    reasons: stream === null ? [] : reasonsOf(facts, judged),
  };
}

type Judged = ReturnType<typeof judgeBelonging>;

function reasonsOf(
  { topics, nodes }: DestroyFacts,
  judged: readonly {
    readonly name: string;
    readonly problem: string | null;
    readonly belonging: Judged | null;
  }[],
): string[] {
  const { state, unreadable } = topics;
  const reasons = unreadable === null ? [] : [`the control log cannot be read: ${unreadable}`];
  for (const { name, problem, belonging } of judged) {
    if (belonging === null) {
      if (state?.detached.has(name) !== true) reasons.push(problem ?? `node ${name} is not known`);
    } else if (belonging.kind === 'foreign') {
      reasons.push(belonging.error.message);
    }
  }
  const inFile = new Set(nodes.map(({ name }) => name));
  const absent = state === null ? [] : nodesOfStream(state).filter((name) => !inFile.has(name));
  for (const name of absent) {
    reasons.push(`node ${name} belongs to the stream, and understudy.yaml does not name it`);
  }
  return reasons;
}

/** `yes` is enough where understudy.yaml leads to the whole stream and to nothing else. */
export function requireConfirmed(
  cluster: string,
  { stream, reasons }: DestroyPlan,
  named: string | null,
): void {
  // rule: more-than-the-file-needs-the-stream-id
  if (named === null && stream !== null && reasons.length > 0) {
    throw needsStreamId(cluster, reasons);
  }
}
