/**
 * Identifies processes. A pid alone is not enough to kill by: after an exit it is reused. A pid
 * with its start time is unique. Also finds the children of a process. A process that has ended and
 * was not yet reaped by its parent (a zombie) counts as ended.
 */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';

export interface ProcessIdentity {
  readonly pid: number;
  /** Opaque; always equal for the same process. */
  readonly startedAt: string;
}

/** undefined when the process does not exist, or is a zombie. */
export function identify(pid: number): ProcessIdentity | undefined {
  return process.platform === 'linux' ? identifyInProc(pid) : identifyByPs(pid);
}

export function isAlive(identity: ProcessIdentity): boolean {
  return identify(identity.pid)?.startedAt === identity.startedAt;
}

export function childrenOf(pid: number): readonly ProcessIdentity[] {
  return listParents()
    .filter((row) => row.parentPid === pid)
    .map((row) => identify(row.pid))
    .filter((identity) => identity !== undefined);
}

/** False when the process has ended. */
export function signalProcess(identity: ProcessIdentity, signal: NodeJS.Signals): boolean {
  if (!isAlive(identity)) return false;
  try {
    process.kill(identity.pid, signal);
    return true;
  } catch (error) {
    // It ended between the check and the signal.
    if (hasCode(error, 'ESRCH')) return false;
    throw error;
  }
}

function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}

/** The fields of /proc/<pid>/stat after the command, which may itself hold spaces and brackets. */
function statFields(pid: number): readonly string[] | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return text.slice(text.lastIndexOf(')') + 2).split(' ');
  } catch (error) {
    if (hasCode(error, 'ENOENT') || hasCode(error, 'ESRCH')) return undefined;
    throw error;
  }
}

function identifyInProc(pid: number): ProcessIdentity | undefined {
  const fields = statFields(pid);
  const state = fields?.[0];
  // Field 22 of proc(5), counted from 1, is the start time in clock ticks since the boot.
  const startedAt = fields?.[19];
  if (state === undefined || startedAt === undefined || 'ZXx'.includes(state)) return undefined;
  return { pid, startedAt };
}

function identifyByPs(pid: number): ProcessIdentity | undefined {
  const line = runPs(['-o', 'stat=,lstart=', '-p', String(pid)]).trim();
  const [state, ...started] = line.split(/\s+/);
  if (state === undefined || state === '' || state.startsWith('Z')) return undefined;
  return { pid, startedAt: started.join(' ') };
}

function listParents(): readonly { readonly pid: number; readonly parentPid: number }[] {
  if (process.platform === 'linux') {
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .map((name) => ({ pid: Number(name), parentPid: Number(statFields(Number(name))?.[1]) }));
  }
  return runPs(['-A', '-o', 'pid=,ppid='])
    .trim()
    .split('\n')
    .map((line) => line.trim().split(/\s+/).map(Number))
    .map(([pid = 0, parentPid = 0]) => ({ pid, parentPid }));
}

/** ps exits with 1 when no process matches; its output is empty then. */
function runPs(args: readonly string[]): string {
  try {
    return execFileSync('ps', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  } catch (error) {
    if (error instanceof Error && 'status' in error && error.status === 1) return '';
    throw error;
  }
}
