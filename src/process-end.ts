/**
 * The end of a process. A process exits by itself when no resource is open; if one still is after a
 * while, a warning names it, so that the leak is found, and the process exits with its exit code
 * all the same.
 */

/** A resource that was closed ends within milliseconds; after this long one was not closed. */
const lingerMs = 2000;

type OpenResources = ReadonlyMap<string, number>;

/** Kinds of resources that keep the process alive, as Node names them, with their counts. */
export function openResources(): OpenResources {
  const counts = new Map<string, number>();
  for (const name of process.getActiveResourcesInfo()) {
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return counts;
}

/** `TCPSocketWrap 2, Timeout 1`: what is open now and was not before. */
function describeLeft(before: OpenResources, now: OpenResources): string {
  const left: string[] = [];
  for (const [name, count] of now) {
    const more = count - (before.get(name) ?? 0);
    if (more > 0) left.push(`${name} ${more}`);
  }
  return left.length === 0 ? 'something unnamed' : left.join(', ');
}

export function endWhenIdle(exit: number, before: OpenResources): void {
  process.exitCode = exit;
  const timer = setTimeout(() => {
    const left = describeLeft(before, openResources());
    process.stderr.write(`warning: still open ${lingerMs} ms after the end: ${left}\n`);
    process.exit(exit);
  }, lingerMs);
  // The timer itself must not keep the process alive.
  timer.unref();
}
