/**
 * What Kafka's error codes and the errors of kafkajs mean: which of them are passing, and the
 * UnderstudyError for the others. No setting that could hold a secret is ever part of a message.
 */
import { otherPublisher } from '../../errors/ownership.ts';
import {
  kafkaPermissionMissing,
  kafkaTooOld,
  transactionTimeoutRefused,
} from '../../errors/prerequisite.ts';
import { topicMissing } from '../../errors/topic.ts';
import { UnderstudyError } from '../../errors/understudy-error.ts';
import { kafkaRefuses, kafkaRefusesLogin, kafkaUnreachable } from '../../errors/unreachable.ts';

/** The codes that the requests of this directory can be answered with, by their Kafka names. */
const errorNames: Readonly<Record<number, string>> = {
  [-1]: 'UNKNOWN_SERVER_ERROR',
  1: 'OFFSET_OUT_OF_RANGE',
  2: 'CORRUPT_MESSAGE',
  3: 'UNKNOWN_TOPIC_OR_PARTITION',
  5: 'LEADER_NOT_AVAILABLE',
  6: 'NOT_LEADER_OR_FOLLOWER',
  7: 'REQUEST_TIMED_OUT',
  9: 'REPLICA_NOT_AVAILABLE',
  10: 'MESSAGE_TOO_LARGE',
  13: 'NETWORK_EXCEPTION',
  14: 'COORDINATOR_LOAD_IN_PROGRESS',
  15: 'COORDINATOR_NOT_AVAILABLE',
  16: 'NOT_COORDINATOR',
  18: 'RECORD_LIST_TOO_LARGE',
  19: 'NOT_ENOUGH_REPLICAS',
  20: 'NOT_ENOUGH_REPLICAS_AFTER_APPEND',
  29: 'TOPIC_AUTHORIZATION_FAILED',
  31: 'CLUSTER_AUTHORIZATION_FAILED',
  35: 'UNSUPPORTED_VERSION',
  42: 'INVALID_REQUEST',
  44: 'POLICY_VIOLATION',
  45: 'OUT_OF_ORDER_SEQUENCE_NUMBER',
  46: 'DUPLICATE_SEQUENCE_NUMBER',
  47: 'INVALID_PRODUCER_EPOCH',
  48: 'INVALID_TXN_STATE',
  49: 'INVALID_PRODUCER_ID_MAPPING',
  50: 'INVALID_TRANSACTION_TIMEOUT',
  51: 'CONCURRENT_TRANSACTIONS',
  52: 'TRANSACTION_COORDINATOR_FENCED',
  53: 'TRANSACTIONAL_ID_AUTHORIZATION_FAILED',
  55: 'OPERATION_NOT_ATTEMPTED',
  56: 'KAFKA_STORAGE_ERROR',
  59: 'UNKNOWN_PRODUCER_ID',
  74: 'FENCED_LEADER_EPOCH',
  75: 'UNKNOWN_LEADER_EPOCH',
  78: 'OFFSET_NOT_AVAILABLE',
  87: 'INVALID_RECORD',
  89: 'THROTTLING_QUOTA_EXCEEDED',
  90: 'PRODUCER_FENCED',
  120: 'TRANSACTION_ABORTABLE',
};

export type KafkaAction = 'read' | 'write' | 'describe' | 'create' | 'delete' | 'connect';

/** A broker's answer that is an error code. */
export class KafkaAnswerError extends Error {
  readonly errorName: string;

  constructor(errorCode: number, apiName: string) {
    const errorName = errorNames[errorCode] ?? `error ${errorCode}`;
    super(`${apiName} was answered by ${errorName}`);
    this.name = 'KafkaAnswerError';
    this.errorName = errorName;
  }
}

/** A wait that ended because the owner of the object called close(). */
export class ClosedError extends Error {
  constructor(what: string) {
    super(`${what} is closed`);
    this.name = 'AbortError';
  }
}

/** The partition moved, or its new leader is not ready: fresh metadata names the new leader. */
const movedNames = new Set([
  'UNKNOWN_TOPIC_OR_PARTITION',
  'LEADER_NOT_AVAILABLE',
  'NOT_LEADER_OR_FOLLOWER',
  'NOT_LEADER_FOR_PARTITION',
  'REPLICA_NOT_AVAILABLE',
  'KAFKA_STORAGE_ERROR',
  'FENCED_LEADER_EPOCH',
  'UNKNOWN_LEADER_EPOCH',
  'OFFSET_NOT_AVAILABLE',
]);

/** The coordinator refused before it did anything, and may accept a moment later. */
const coordinatorBusyNames = new Set([
  'CONCURRENT_TRANSACTIONS',
  'COORDINATOR_LOAD_IN_PROGRESS',
  'COORDINATOR_NOT_AVAILABLE',
  'GROUP_COORDINATOR_NOT_AVAILABLE',
  'NOT_COORDINATOR',
  'UNKNOWN_TOPIC_OR_PARTITION',
]);

const fencedNames = new Set([
  'PRODUCER_FENCED',
  'INVALID_PRODUCER_EPOCH',
  'INVALID_PRODUCER_ID_MAPPING',
]);

const authorizationNames = new Set([
  'TOPIC_AUTHORIZATION_FAILED',
  'CLUSTER_AUTHORIZATION_FAILED',
  'TRANSACTIONAL_ID_AUTHORIZATION_FAILED',
]);

const tooLargeNames = new Set(['MESSAGE_TOO_LARGE', 'RECORD_LIST_TOO_LARGE']);

/** Name of a protocol error, whether we or kafkajs decoded it; null for any other error. */
export function answerName(error: unknown): string | null {
  if (error instanceof KafkaAnswerError) return error.errorName;
  if (!(error instanceof Error)) return null;
  const { type, errors } = error as { readonly type?: unknown; readonly errors?: unknown };
  if (typeof type === 'string') return type;
  if (Array.isArray(errors)) return answerName(errors[0]);
  return error.cause === undefined ? null : answerName(error.cause);
}

function isNamed(error: unknown, names: ReadonlySet<string>): boolean {
  const name = answerName(error);
  return name !== null && names.has(name);
}

export function isMoved(error: unknown): boolean {
  return isNamed(error, movedNames);
}

export function isCoordinatorBusy(error: unknown): boolean {
  return isNamed(error, coordinatorBusyNames);
}

export function isTooLarge(error: unknown): boolean {
  return isNamed(error, tooLargeNames);
}

export function isFenced(error: unknown): boolean {
  return isNamed(error, fencedNames);
}

/** No answer: a connection broke, a broker is down, or the answer timed out. */
export function isConnectionLost(error: unknown): boolean {
  if (!(error instanceof Error) || answerName(error) !== null) return false;
  return error.name.startsWith('KafkaJS') && !isRefusedLogin(error);
}

export interface ErrorContext {
  readonly brokers: readonly string[];
  readonly action: KafkaAction;
  readonly topic: string | null;
  readonly transactionalId: string | null;
}

/** The error to report for one of Kafka or kafkajs. An UnderstudyError stays as it is. */
export function explain(error: unknown, context: ErrorContext): Error {
  if (error instanceof UnderstudyError || error instanceof ClosedError) return error;
  const name = answerName(error);
  return name === null ? explainConnection(error, context) : explainAnswer(name, error, context);
}

function explainAnswer(name: string, cause: unknown, context: ErrorContext): UnderstudyError {
  const { brokers, action, transactionalId } = context;
  const topic = context.topic ?? 'the cluster';
  if (fencedNames.has(name)) return otherPublisher(transactionalId ?? topic, name, cause);
  if (authorizationNames.has(name)) {
    return kafkaPermissionMissing({ action, topic, answer: name }, cause);
  }
  switch (name) {
    case 'UNKNOWN_TOPIC_OR_PARTITION':
      return topicMissing(topic, cause);
    case 'INVALID_TRANSACTION_TIMEOUT':
      return transactionTimeoutRefused(cause);
    case 'UNSUPPORTED_VERSION':
      return kafkaTooOld(cause);
    default:
      return kafkaRefuses({ brokers: brokers.join(', '), action, topic }, name, cause);
  }
}

function explainConnection(cause: unknown, { brokers }: ErrorContext): UnderstudyError {
  if (isRefusedLogin(cause)) return kafkaRefusesLogin(brokers, cause);
  return kafkaUnreachable(brokers, innermostReason(cause), cause);
}

function isRefusedLogin(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  if (error.name === 'KafkaJSSASLAuthenticationError') return true;
  return error.cause !== undefined && isRefusedLogin(error.cause);
}

/** kafkajs wraps errors: the first line of the innermost one is the reason. */
function innermostReason(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error.cause instanceof Error) return innermostReason(error.cause);
  return error.message.split('\n', 1)[0] ?? error.name;
}
