/**
 * The process that cleans up when the owner of a sandbox cannot: after kill -9, after a crash,
 * after process.exit(). It reads one JSON line for each started process and each directory, from a
 * pipe that only the owner holds. The pipe ends when the owner is finished or dead; then the
 * janitor ends the remaining processes, removes the directories, and exits. It runs in its own
 * session, so that a Ctrl-C in the owner's terminal does not reach it.
 */
import { createInterface } from 'node:readline';
import { endProcesses, type OwnedProcess, removeDirectories } from './clean-up.ts';

export type JanitorOrder =
  | { readonly kind: 'process'; readonly process: OwnedProcess }
  | { readonly kind: 'directory'; readonly directory: string };

const processes: OwnedProcess[] = [];
const directories: string[] = [];

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line) as JanitorOrder;
  if (order.kind === 'process') processes.push(order.process);
  else directories.push(order.directory);
}
const ended = await endProcesses(processes);
await removeDirectories(directories);
process.exitCode = ended ? 0 : 1;
