/**
 * How much memory a process holds now. Flows in: a pid; flows out: bytes, or null where the process
 * has ended or the system does not tell.
 */
import { readFileSync } from 'node:fs';

export function residentBytes(pid: number): number | null {
  try {
    const kilobytes = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
    return kilobytes === undefined ? null : Number(kilobytes) * 1024;
  } catch {
    return null;
  }
}
