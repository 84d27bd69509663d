/**
 * What a process has cost so far, as the kernel counts it. Flows in: a pid; flows out: its CPU time
 * of all threads and its memory. Linux only; a process that is gone is an error.
 */
import { readFile, writeFile } from 'node:fs/promises';

/** USER_HZ: fixed at 100 on every Linux that Node runs on. */
const ticksPerSecond = 100;
/** Of /proc/<pid>/stat, counted from the field after the command, which may hold spaces. */
const userTicksAt = 11;
const systemTicksAt = 12;

/** User and system time since the start. */
export async function cpuSeconds(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const ticks = Number(fields[userTicksAt]) + Number(fields[systemTicksAt]);
  return ticks / ticksPerSecond;
}

/** The most it ever held in memory. */
export async function peakMemoryBytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  const kiloBytes = /^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1];
  if (kiloBytes === undefined) throw new Error(`process ${pid} tells no peak of its memory`);
  return Number(kiloBytes) * 1024;
}

/** From now on the peak counts anew. */
export async function forgetPeakMemory(pid: number): Promise<void> {
  await writeFile(`/proc/${pid}/clear_refs`, '5');
}
