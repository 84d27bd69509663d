/**
 * P, as in `--at P`: a consistency point as people name it, by its label or its end LSN. A label
 * has no slash and an LSN always has one. Only an LSN with its epoch is complete: labels and the
 * current epoch are read from the control log.
 */
import { isLsnText, type Lsn, parseLsn } from '../change/lsn.ts';
import { type EpochLsn, parseEpochLsn } from '../change/position.ts';
import type { ControlLog } from '../control/control-log.ts';
import { bug } from '../errors/bug.ts';
import { notInitialised } from '../errors/cluster.ts';
import { pointMissing } from '../errors/timed-out.ts';
import { hasCode } from '../errors/understudy-error.ts';
import { invalidLabel, invalidPoint } from '../errors/usage.ts';
import type { Cluster } from '../fleet/cluster.ts';
import { openFleetLog } from '../fleet/node/member-session.ts';
import type { CommandContext } from './command.ts';

export type PointReference =
  | { readonly kind: 'label'; readonly label: string }
  /** Null is the current epoch. */
  | { readonly kind: 'lsn'; readonly epoch: number | null; readonly lsn: Lsn };

const labelPattern = /^[a-z][a-z0-9_.-]{0,62}$/;

export function parsePointLabel(text: string): string {
  if (labelPattern.test(text)) return text;
  throw invalidLabel(text);
}

export function parsePointReference(text: string): PointReference {
  const at = parseEpochLsn(text);
  if (at !== null) return { kind: 'lsn', epoch: at.epoch, lsn: at.lsn };
  if (isLsnText(text)) return { kind: 'lsn', epoch: null, lsn: parseLsn(text) };
  if (labelPattern.test(text)) return { kind: 'label', label: text };
  throw invalidPoint(text);
}

/** Opens the control log only where it is needed: `wait` works while Kafka is unreachable. */
export async function resolvePoint(
  { releasers, signal }: Pick<CommandContext, 'releasers' | 'signal'>,
  cluster: Cluster,
  at: PointReference,
  timeoutMs: number,
  /** Called with a label that is not there yet, before it is waited for. */
  onAbsent: (label: string) => void = () => undefined,
): Promise<EpochLsn> {
  if (at.kind === 'lsn' && at.epoch !== null) return { epoch: at.epoch, lsn: at.lsn };
  const control = await openFleetLog(cluster, releasers);
  if (at.kind === 'label' && !control.state.labels.has(at.label)) onAbsent(at.label);
  return resolveIn(control, cluster.name, at, timeoutMs, signal);
}

/** Waits for a label that is not in the log yet: it is written a moment after its transaction. */
export async function resolveIn(
  control: ControlLog,
  cluster: string,
  at: PointReference,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<EpochLsn> {
  if (at.kind === 'lsn') {
    const epoch = at.epoch ?? control.state.current?.epoch;
    if (epoch !== undefined) return { epoch, lsn: at.lsn };
    throw notInitialised(cluster);
  }
  const { label } = at;
  const named = control.waitFor(({ labels }) => labels.has(label), timeoutMs, signal);
  const { labels } = await named.catch((error: unknown) => {
    throw hasCode(error, 'TIMED_OUT') ? pointMissing(label, timeoutMs, error) : error;
  });
  const point = labels.get(label);
  if (point === undefined) throw bug(`the label ${label} is missing after the wait for it`);
  return point.at;
}
