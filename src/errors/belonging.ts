/**
 * Databases, topics and configurations that do not belong together (OTHER_DATABASE,
 * NEEDS_STREAM_ID): copies of understudy.yaml, moved or restored databases, a node's name that is
 * used twice. Each message says where the node or the stream really is.
 */
import { UnderstudyError } from './understudy-error.ts';

/** A database as the control log, or a session, knows it. */
export interface DatabasePlace {
  readonly name: string;
  readonly address: string;
  readonly systemId: string;
  /** When its last start was recorded; absent for the one that was reached just now. */
  readonly since?: string;
}

/** `shop at a.example:5432 (system 7412…)`. */
export function placeText({ name, address, systemId }: DatabasePlace): string {
  return `database ${name} at ${address} (system ${systemId})`;
}

/** Where the control log last saw a node served from; for people. */
export function servedText(node: string, served: DatabasePlace | null): string {
  if (served === null) return `node ${node} was served from another database before`;
  return `node ${node} is served from ${placeText(served)}, last recorded on ${served.since ?? ''}`;
}

export function otherDatabase(
  node: string,
  reached: DatabasePlace,
  served: DatabasePlace | null,
): UnderstudyError {
  const { name, address, systemId } = reached;
  return new UnderstudyError(
    'OTHER_DATABASE',
    `${servedText(node, served)}; understudy.yaml leads to ${placeText(reached)}`,
    otherDatabaseHint(node),
    undefined,
    { node, database: name, address, systemId, served: served?.address ?? null },
  );
}

/** `check` shows it too. */
function otherDatabaseHint(node: string): string {
  return (
    'Correct the URL of the node; in a copy of understudy.yaml, give the copy a cluster name of ' +
    `its own. If that database is out of use for good: \`understudy run ${node} --replace\``
  );
}

const seeDestroy =
  'See what understudy.yaml leads to, and what would be removed: `understudy destroy`. ';

/** `reasons` say what of the stream is elsewhere, or what is not of the stream. */
export function needsStreamId(cluster: string, reasons: readonly string[]): UnderstudyError {
  const more = reasons.length > 1 ? ` (and ${reasons.length - 1} more)` : '';
  return new UnderstudyError(
    'NEEDS_STREAM_ID',
    `the cluster ${cluster} is not just what understudy.yaml leads to: ${reasons[0] ?? ''}${more}`,
    `${seeDestroy}In a copy of understudy.yaml, correct its cluster name. To remove the stream ` +
      'all the same, name its id: --stream',
    undefined,
    { cluster },
  );
}

export function wrongStreamId(cluster: string, named: string): UnderstudyError {
  return new UnderstudyError(
    'NEEDS_STREAM_ID',
    `the cluster ${cluster} has no stream ${named}`,
    `${seeDestroy}It shows the id of the stream.`,
    undefined,
    { cluster, stream: named },
  );
}

/** The topics are gone, and the databases are those of several streams. */
export function severalStreams(cluster: string, streams: readonly string[]): UnderstudyError {
  return new UnderstudyError(
    'NEEDS_STREAM_ID',
    `the databases belong to several streams of the cluster ${cluster}: ${streams.join(', ')}`,
    'Name the one whose databases are to be cleaned: --stream',
    undefined,
    { cluster },
  );
}

/** No stream is known, and the topic holds records. */
export function recordsOfNoStream(topic: string): UnderstudyError {
  return new UnderstudyError(
    'TOPIC_MISMATCH',
    `${topic} holds records, and no control log says of which stream`,
    'It may belong to another program: nothing is removed. If it is not needed, delete it: ' +
      `\`kafka-topics.sh --bootstrap-server <brokers> --delete --topic ${topic}\``,
    undefined,
    { topic },
  );
}
