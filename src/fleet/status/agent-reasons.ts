/**
 * Why a node does nothing, as far as its agent is concerned: whether one runs, with which error the
 * last one failed, and whether that of a leader reads the WAL. It takes what was read from the
 * node's database and gives sentences for `status`; an error that was left there is never taken for
 * the absence of one. Pure.
 */
import type { AgentError } from '../node/agent-error.ts';
import type { DatabaseFacts } from './fleet-facts.ts';
import type { NodeStatus } from './node-status.ts';
import { slotReport } from './retained-wal.ts';

type AgentFacts = Pick<DatabaseFacts, 'agentRuns' | 'agentError' | 'slots'>;

export function errorOf({ agentError = null }: Pick<AgentFacts, 'agentError'>): AgentError | null {
  return agentError;
}

export function noAgent(name: string, facts: AgentFacts): string {
  const error = errorOf(facts);
  if (error === null) return `no agent runs: understudy run ${name}`;
  return `no agent runs; the last one failed ${errorText(error)}`;
}

/** Of an agent that runs and is not in its role; null where it left no error. */
export function retryText(facts: AgentFacts): string | null {
  const error = errorOf(facts);
  return error === null ? null : `its agent retries, it failed ${errorText(error)}`;
}

function errorText({ time, code, message }: AgentError): string {
  return `at ${time} with ${code}: ${message}`;
}

/** Of a leader; none while it streams. */
export function whyNotStreaming(name: string, facts: AgentFacts): string[] {
  const absent = facts.agentRuns ? [] : [noAgent(name, facts)];
  const { lost } = slotReport(facts.slots);
  if (lost.length > 0 || !facts.agentRuns) return [...absent, ...lost];
  if (facts.slots.some(({ active }) => active)) return [];
  const waits = 'its agent runs, but does not read the WAL: its log names what it waits for';
  return [retryText(facts) ?? waits];
}

/** What is not in the topic; how old that is, is not known. */
export function leaderLag({ slots: [slot] }: AgentFacts): Pick<NodeStatus, 'lagBytes' | 'lagMs'> {
  const lagBytes = slot?.unconfirmedBytes ?? null;
  return { lagBytes, lagMs: lagBytes === 0 ? 0 : null };
}

/** After a promotion; while no agent runs, nothing opens them. */
export function closedTo({ closedTables = [] }: Pick<DatabaseFacts, 'closedTables'>): string[] {
  if (closedTables.length === 0) return [];
  const names = closedTables.slice(0, 5).join(', ');
  const more = closedTables.length > 5 ? ` and ${closedTables.length - 5} more` : '';
  return [`no writes yet in ${names}${more}: its agent opens each once its lock is free`];
}

/** The one way back of a former leader. */
export function comesBack(name: string): string {
  return `to have it back, give it a new empty database: understudy run ${name} --replace`;
}

/** It follows and leads with them: an operator should know before a failover. */
export function notValidOf({ notValid = [] }: Pick<DatabaseFacts, 'notValid'>): string[] {
  return notValid.length === 0 ? [] : [`NOT VALID here: foreign keys ${notValid.join(', ')}`];
}
