/**
 * The end of a process. An exit code and what was open at the start flow in. A process ends by
 * itself when nothing is open; if something still is after a while, that is said, so that the leak
 * is found, and the process ends with its exit code all the same.
 */

/**
 * What was closed properly lets go within milliseconds; after this long something was forgotten.
 */
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
  // It must not be what keeps the process alive.
  timer.unref();
}
