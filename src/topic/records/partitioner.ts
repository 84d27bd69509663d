/**
 * The partition of a key: Kafka's default partitioner, murmur2 of the key's bytes modulo the number
 * of partitions. Any other client that produces or reads by key finds the same one. Nothing is
 * allocated.
 */
const seed = 0x9747b28c;
const multiplier = 0x5bd1e995;

/** The 32-bit murmur2 of Kafka's Java client, as a signed number. */
export function murmur2(bytes: Uint8Array): number {
  const length = bytes.length;
  let hash = seed ^ length;
  let at = 0;
  for (const last = length - 4; at <= last; at += 4) {
    let word =
      (bytes[at] as number) |
      ((bytes[at + 1] as number) << 8) |
      ((bytes[at + 2] as number) << 16) |
      ((bytes[at + 3] as number) << 24);
    word = Math.imul(word, multiplier);
    word = Math.imul(word ^ (word >>> 24), multiplier);
    hash = Math.imul(hash, multiplier) ^ word;
  }
  const left = length - at;
  if (left === 3) hash ^= (bytes[at + 2] as number) << 16;
  if (left >= 2) hash ^= (bytes[at + 1] as number) << 8;
  if (left >= 1) hash = Math.imul(hash ^ (bytes[at] as number), multiplier);
  hash = Math.imul(hash ^ (hash >>> 13), multiplier);
  return hash ^ (hash >>> 15);
}

export function partitionOf(key: Uint8Array, partitions: number): number {
  return (murmur2(key) & 0x7fffffff) % partitions;
}
