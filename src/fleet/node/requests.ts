/**
 * What a command asks of a node's agent, through the control log: the form of a request, how long
 * its command waits, and asking itself. A request is written once; an agent that does not answer in
 * time is reported, not asked again. A failure in the answer is thrown as if it had happened here.
 */
import type { RowKey } from '../../change/change.ts';
import { type EpochLsn, parseEpochLsn } from '../../change/position.ts';
import type { ControlLog } from '../../control/control-log.ts';
import type { RecordOf } from '../../control/control-records.ts';
import { answeredWith } from '../../errors/answers.ts';
import { bug } from '../../errors/bug.ts';
import { hasCode, type UnderstudyError } from '../../errors/understudy-error.ts';
import { incompleteRequest } from '../../errors/usage.ts';
import type { RebuildWay } from '../../follower/state/rebuild-state.ts';
import type { Surroundings } from '../cluster.ts';

export type AgentRequest = RecordOf<'request'>;

/** How long a command waits for a failover: slot, drain and streaming have limits of their own. */
export const failoverWaitMs = 180_000;
/** The same for a detach: it first applies as much as a delay may hold back. */
export const detachWaitMs = 180_000;
/** The same for a rebuild, which is answered once it has begun. */
export const rebuildWaitMs = 60_000;

interface AskOptions {
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  /** The error of an agent that does not answer in time. */
  readonly late: (cause: unknown) => UnderstudyError;
  readonly around: Pick<Surroundings, 'nowMs'>;
}

/** Gives the result of the answer. */
export async function askAgent(
  control: ControlLog,
  question: Omit<AgentRequest, 'kind' | 'time'>,
  { timeoutMs, signal, late, around }: AskOptions,
): Promise<RecordOf<'answer'>['result']> {
  signal.throwIfAborted();
  const time = new Date(around.nowMs()).toISOString();
  await control.append({ kind: 'request', ...question, time });
  const find = (): RecordOf<'answer'> | undefined =>
    control.answers(question.id).find(({ step }) => step === question.step);
  try {
    await control.waitFor(() => find() !== undefined, timeoutMs, signal);
  } catch (error) {
    throw hasCode(error, 'TIMED_OUT') ? late(error) : error;
  }
  const answer = find();
  if (answer === undefined) throw bug('an answer that was read is there');
  if (answer.error !== null) throw answeredWith(answer.error, question.node);
  return answer.result;
}

/**
 * Whether a request that was made before its agent was ready still has a command that waits. The
 * clocks of two machines decide no more than whether the command has to ask again: the one epoch
 * that may be claimed for it is in the request.
 */
export function stillWaits(request: AgentRequest, isAnswered: boolean, nowMs: number): boolean {
  if (!lastingVerbs.includes(request.verb) || isAnswered) return false;
  return Math.abs(nowMs - Date.parse(request.time)) < failoverWaitMs;
}

/** Their commands wait for minutes, and may have asked while the agent was restarting. */
const lastingVerbs: readonly string[] = ['failover', 'detach', 'rebuild'];

/** The epoch that a request means: a later one would depose the node that was faster. */
export function epochOf(request: AgentRequest | null): number | null {
  const epoch = request?.args.epoch;
  return typeof epoch === 'number' ? epoch : null;
}

/** The LSN that a request names, or null. */
export function targetOf(request: AgentRequest): EpochLsn | null {
  const { to } = request.args;
  return typeof to === 'string' ? parseEpochLsn(to) : null;
}

export function wayOf({ id, args: { way } }: AgentRequest): RebuildWay {
  if (way === 'swap' || way === 'in-place') return way;
  throw incompleteRequest(id, 'no way to rebuild the node');
}

export function keysOf({ id, args: { relation, keys } }: AgentRequest): RowKey[] {
  const isText = (one: unknown): one is string => typeof one === 'string';
  const isKey = (one: unknown): one is string[] => Array.isArray(one) && one.every(isText);
  if (isText(relation) && Array.isArray(keys) && keys.every(isKey)) {
    return keys.map((identity) => ({ relationId: relation, identity }));
  }
  throw incompleteRequest(id, 'no keys');
}
