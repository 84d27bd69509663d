/**
 * Failpoints: named statements at which a test can kill, fail or pause the process. The environment
 * variable UNDERSTUDY_FAILPOINTS is read once, at the start; each failpoint acts once, at its n-th
 * pass. With nothing armed `hit` does nothing and returns nothing, so the hot path may call it.
 */

import { unreachable } from './errors/bug.ts';
import { failpointHit } from './errors/timed-out.ts';
import type { UnderstudyError } from './errors/understudy-error.ts';
import { invalidFailpoints } from './errors/usage.ts';

export const failpointNames = [
  'publish.before-send',
  'publish.after-send',
  'publish.before-commit',
  'publish.after-commit',
  'ack.before',
  'apply.before',
  'apply.after-step',
  'apply.before-commit',
  'apply.after-commit',
  'anew.after-drop',
  'anew.after-publication',
  'agent.after-start',
  'chunk.after-read',
  'chunk.after-watermark',
  'heal.after-read',
  'heal.after-watermark',
  'init.after-install',
  'init.after-topics',
  'init.after-slot',
  'init.after-nodes',
  'own.after-claim',
  'own.after-init',
  'own.after-fence',
  'own.before-epoch-begin',
  'own.after-ask',
  'detach.before-stop',
  'detach.after-stop',
  'detach.after-mark',
  'detach.after-record',
  'detach.after-sequences',
  'detach.after-guard',
  'promote.after-slot',
  'promote.before-unguard',
  'rebuild.after-mark',
  'rebuild.after-create',
  'rebuild.after-prepare',
  'rebuild.before-swap',
  'rebuild.inside-swap',
  'rebuild.after-swap',
  'rebuild.after-drop',
  'schema.after-statement',
] as const;

type FailpointName = (typeof failpointNames)[number];

/** `kill` sends SIGKILL to this process, `error` is a failure that is retried, `pause` waits. */
type FailpointAction =
  | { readonly kind: 'kill' }
  | { readonly kind: 'error' }
  | { readonly kind: 'pause'; readonly ms: number };

interface ArmedFailpoint {
  readonly name: FailpointName;
  readonly action: FailpointAction;
  /** The pass at which it acts, from 1. */
  readonly atPass: number;
}

let armed: { readonly failpoint: ArmedFailpoint; passes: number }[] | null = null;

/** Arms the failpoints that the text names; undefined or empty disarms all. */
export function armFailpoints(text: string | undefined): void {
  const failpoints = text === undefined || text.trim() === '' ? [] : parseFailpoints(text);
  armed =
    failpoints.length === 0 ? null : failpoints.map((failpoint) => ({ failpoint, passes: 0 }));
}

/** To be awaited at the failpoint. Undefined when nothing is armed there for this pass. */
export function hit(name: FailpointName): Promise<void> | undefined {
  if (armed === null) return undefined;
  let action: FailpointAction | null = null;
  for (const entry of armed) {
    if (entry.failpoint.name !== name) continue;
    entry.passes += 1;
    if (entry.passes === entry.failpoint.atPass) action ??= entry.failpoint.action;
  }
  return action === null ? undefined : act(name, action);
}

async function act(name: FailpointName, action: FailpointAction): Promise<void> {
  switch (action.kind) {
    case 'kill':
      process.kill(process.pid, 'SIGKILL');
      // The signal may arrive a moment later; until then no later statement may run.
      await new Promise<never>(() => undefined);
      return;
    case 'error':
      throw failpointHit(name);
    case 'pause':
      await new Promise((resolve) => setTimeout(resolve, action.ms));
      return;
    default:
      unreachable(action);
  }
}

const pairPattern = /^([a-z.-]+)=(?:(kill|error)|pause:([0-9]{1,7}))(?::([1-9][0-9]{0,8}))?$/;

/** Parses `name=action[:n][,…]`; the actions are kill, error and pause:<ms>. */
export function parseFailpoints(text: string): readonly ArmedFailpoint[] {
  return text.split(',').map((part) => {
    const match = pairPattern.exec(part.trim());
    if (match === null) throw failpointError(`${JSON.stringify(part)} is not name=action[:n]`);
    const [, wanted = '', simple, pauseMs, pass = '1'] = match;
    const name = failpointNames.find((known) => known === wanted);
    if (name === undefined) throw failpointError(`${wanted} is not a failpoint`);
    return { name, action: actionOf(simple, pauseMs), atPass: Number(pass) };
  });
}

function actionOf(simple: string | undefined, pauseMs: string | undefined): FailpointAction {
  if (simple === 'kill') return { kind: 'kill' };
  if (simple === 'error') return { kind: 'error' };
  return { kind: 'pause', ms: Number(pauseMs) };
}

function failpointError(what: string): UnderstudyError {
  return invalidFailpoints(what, failpointNames);
}
