/**
 * Asks the agent of a node something, through the control log. Flows in: one step of a request;
 * flows out: the result of the agent's answer, or the failure that the agent tells, as if it had
 * happened here. Nobody is asked twice: an agent that does not answer in time is told of.
 */
import type { ControlLog } from '../../control/control-log.ts';
import type { RecordOf } from '../../control/control-records.ts';
import { type ErrorCode, errorTable } from '../../errors/codes.ts';
import { hasCode, UnderstudyError } from '../../errors/understudy-error.ts';
import type { Surroundings } from '../cluster.ts';

type AgentQuestion = Omit<RecordOf<'request'>, 'kind' | 'time'>;

interface AskOptions {
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  /** What it means that there is no answer. */
  readonly late: (cause: unknown) => UnderstudyError;
  readonly around: Pick<Surroundings, 'nowMs'>;
}

export async function askAgent(
  control: ControlLog,
  question: AgentQuestion,
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
  if (answer === undefined) throw new Error('an answer that was read is there');
  if (answer.error !== null) throw failureOf(answer.error, question.node);
  return answer.result;
}

/** A newer agent may know codes that this version does not. */
function failureOf(
  { code, message, hint }: NonNullable<RecordOf<'answer'>['error']>,
  node: string,
): UnderstudyError {
  const isKnown = (text: string): text is ErrorCode => Object.hasOwn(errorTable, text);
  return new UnderstudyError(isKnown(code) ? code : 'BUG', `node ${node}: ${message}`, hint);
}
