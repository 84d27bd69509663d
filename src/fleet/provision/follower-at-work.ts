/**
 * A follower that runs, as those see it who want something of it: to take the lead, to stop at a
 * place. Flows in and out: nothing but its form.
 */
import type { Follower } from '../../follower/follower.ts';
import type { OpenBuild } from '../../follower/schema/schema-build.ts';

export interface FollowerAtWork {
  readonly follower: Follower;
  /** Settles when its run has ended. */
  readonly ended: Promise<void>;
  /** Makes now what was left for later; gives what this node refuses of it. */
  readonly finishSchema: () => Promise<OpenBuild | null>;
}
