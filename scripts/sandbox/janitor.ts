/**
 * The process that cleans up when the owner of a sandbox cannot: after kill -9, after a crash,
 * after process.exit(). Flows in: one JSON line per started process and per directory, over a pipe
 * that only the owner holds. The end of that pipe means that the owner is done or dead; then
 * whatever is left is ended and removed, and the janitor ends too. It runs in a session of its own,
 * so that a Ctrl-C in the owner's terminal does not reach it.
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
