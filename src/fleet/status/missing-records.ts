/**
 * Whether the topic still holds what a follower reads next. Flows in: where it reads on, and from
 * where to where the partitions reach; flows out: one reason for each partition that cannot give
 * it. A node with such a reason cannot follow any more, and so cannot be promoted. Pure.
 */
import type { DatabaseFacts, TopicFacts } from '../node/fleet-facts.ts';

/** Where an agent runs, its position may be younger than the look at the end of the topic. */
export function missingRecords(
  topic: TopicFacts | null,
  { agentRuns, position }: DatabaseFacts,
): string[] {
  return (topic?.watermarks ?? []).flatMap(({ partition, lowWatermark, lastStableOffset }) => {
    const next = position?.checkpoint?.nextOffsets[partition];
    if (next === undefined) return [];
    if (next >= lowWatermark && (agentRuns || next <= lastStableOffset)) return [];
    const holds = `${lowWatermark} to ${lastStableOffset}`;
    return [`it needs the offset ${next} of partition ${partition}, which holds ${holds}`];
  });
}
