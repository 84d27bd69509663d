/**
 * A wait that ends early. A promise and a signal flow in; the promise's own end flows out, or the
 * signal's reason as soon as it is aborted. What was waited for goes on by itself: whoever started
 * it has to end it, and its late failure is nobody's surprise.
 */
export async function interruptible<Result>(
  promise: Promise<Result>,
  signal: AbortSignal,
): Promise<Result> {
  const over = new AbortController();
  const stopped = new Promise<never>((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener('abort', () => reject(signal.reason), { signal: over.signal });
  });
  try {
    return await Promise.race([promise, stopped]);
  } finally {
    over.abort();
  }
}
