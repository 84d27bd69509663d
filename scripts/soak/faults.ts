/**
 * The mix of faults, as data: the name of each, how often it is drawn, which nodes it meets, how
 * long it lasts, how it is done and how it is undone. Two faults of different parts may overlap.
 */

import { connectKafka } from '../../src/topic/kafka/client.ts';
import { createTransactionalProducer } from '../../src/topic/kafka/transactional-producer.ts';
import { changesTopic, transactionalId } from '../../src/topic/records/layout.ts';
import type { NodeName } from '../../test/support/fleet-options.ts';
import { testLog } from '../../test/support/topic-stack.ts';
import { type Scene, serverOf } from './scene.ts';

export interface Fault {
  readonly name: string;
  /** Of two faults the one with twice the weight is drawn twice as often. */
  readonly weight: number;
  /** The part that it disturbs; faults that overlap disturb different parts. */
  readonly part: 'agent' | 'server' | 'kafka' | 'registry' | 'session';
  readonly meets: 'leader' | 'follower' | 'all';
  /** What is down on these nodes during the fault, as `status` has to report. */
  readonly down: 'agent' | 'server' | null;
  /** The least and the longest time before it is undone. */
  readonly holdMs: readonly [number, number];
  apply(scene: Scene, nodes: readonly NodeName[]): Promise<void>;
  undo(scene: Scene, nodes: readonly NodeName[]): Promise<void>;
}

type Act = (scene: Scene, node: NodeName) => Promise<unknown>;

const nothing = async (): Promise<void> => undefined;

function each(act: Act): Fault['apply'] {
  return async (scene, nodes) => {
    await Promise.all(nodes.map((node) => act(scene, node)));
  };
}

const spawnAgent: Act = async ({ run }, node) => run.fleet.spawnAgent(node);

const killedAgent = {
  part: 'agent',
  down: 'agent',
  apply: each(({ run }, node) => run.fleet.agent(node).kill()),
  undo: each(spawnAgent),
} as const;

const frozenAgent = {
  part: 'agent',
  down: null,
  apply: each(async ({ run }, node) => run.fleet.agent(node).signal('SIGSTOP')),
  undo: each(async ({ run }, node) => run.fleet.agent(node).signal('SIGCONT')),
} as const;

const stoppedAgent = {
  part: 'agent',
  down: 'agent',
  apply: each(async ({ run }, node) => {
    const code = await run.fleet.agent(node).stop();
    if (code !== 0) throw new Error(`the agent of ${node} exited with ${code} after SIGTERM`);
  }),
  undo: each(spawnAgent),
} as const;

const startServer = each((scene, node) => serverOf(scene, node).start());

const killedServer = {
  part: 'server',
  down: 'server',
  apply: each((scene, node) => serverOf(scene, node).kill()),
  undo: startServer,
} as const;

const immediateServer = {
  part: 'server',
  down: 'server',
  apply: each((scene, node) => serverOf(scene, node).stop('immediate')),
  undo: startServer,
} as const;

const fastServer = {
  part: 'server',
  down: 'server',
  apply: each((scene, node) => serverOf(scene, node).stop('fast')),
  undo: startServer,
} as const;

const frozenServer = {
  part: 'server',
  down: 'server',
  apply: each((scene, node) => serverOf(scene, node).kill('SIGSTOP')),
  undo: each((scene, node) => serverOf(scene, node).kill('SIGCONT')),
} as const;

/** Sessions of agents, including walsenders, but not this one. */
const endedSessions: Fault['apply'] = each(({ run }, node) =>
  run.fleet.sql(
    node,
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE application_name LIKE 'understudy%' AND pid <> pg_backend_pid()`,
  ),
);

const anyBroker = ({ sandbox, random }: Scene) =>
  sandbox.kafka[Math.floor(random() * sandbox.kafka.length)];

/** Initialises a producer with the transactional id, which aborts the open transaction. */
async function fence({ run, sandbox }: Scene): Promise<void> {
  const { cluster } = run.fleet;
  const client = connectKafka({ brokers: sandbox.brokers, clientId: 'stranger' }, testLog);
  const stranger = createTransactionalProducer(client, {
    topic: changesTopic(cluster),
    partitions: run.fleet.partitions,
    transactionalId: transactionalId(cluster),
  });
  await stranger.open();
  await stranger.close();
}

const returned = async ({ sandbox }: Scene): Promise<void> => {
  for (const broker of sandbox.kafka) {
    await broker.kill('SIGCONT');
    await broker.start();
  }
};

export const faults: readonly Fault[] = [
  { name: 'kill the publisher', weight: 6, meets: 'leader', holdMs: [0, 2_000], ...killedAgent },
  { name: 'kill an applier', weight: 6, meets: 'follower', holdMs: [0, 3_000], ...killedAgent },
  { name: 'kill all agents', weight: 2, meets: 'all', holdMs: [0, 2_000], ...killedAgent },
  {
    name: 'freeze the publisher',
    weight: 3,
    meets: 'leader',
    holdMs: [500, 12_000],
    ...frozenAgent,
  },
  { name: 'freeze an applier', weight: 3, meets: 'follower', holdMs: [500, 8_000], ...frozenAgent },
  { name: 'stop the publisher', weight: 2, meets: 'leader', holdMs: [0, 3_000], ...stoppedAgent },
  { name: 'stop an applier', weight: 2, meets: 'follower', holdMs: [0, 3_000], ...stoppedAgent },
  {
    name: 'kill the leader’s server',
    weight: 3,
    meets: 'leader',
    holdMs: [0, 3_000],
    ...killedServer,
  },
  {
    name: 'kill a follower’s server',
    weight: 3,
    meets: 'follower',
    holdMs: [0, 3_000],
    ...killedServer,
  },
  {
    name: 'stop the leader’s server at once',
    weight: 2,
    meets: 'leader',
    holdMs: [0, 3_000],
    ...immediateServer,
  },
  {
    name: 'stop a follower’s server at once',
    weight: 2,
    meets: 'follower',
    holdMs: [0, 3_000],
    ...immediateServer,
  },
  {
    name: 'restart the leader’s server',
    weight: 2,
    meets: 'leader',
    holdMs: [0, 1_000],
    ...fastServer,
  },
  {
    name: 'restart a follower’s server',
    weight: 2,
    meets: 'follower',
    holdMs: [0, 1_000],
    ...fastServer,
  },
  {
    name: 'freeze the leader’s server',
    weight: 1,
    meets: 'leader',
    holdMs: [500, 6_000],
    ...frozenServer,
  },
  {
    name: 'freeze a follower’s server',
    weight: 1,
    meets: 'follower',
    holdMs: [500, 6_000],
    ...frozenServer,
  },
  {
    ...{
      name: 'end the publisher’s sessions',
      weight: 2,
      part: 'session',
      down: null,
      meets: 'leader',
    },
    ...{ holdMs: [0, 100], apply: endedSessions, undo: nothing },
  },
  {
    ...{
      name: 'end an applier’s sessions',
      weight: 2,
      part: 'session',
      down: null,
      meets: 'follower',
    },
    ...{ holdMs: [0, 100], apply: endedSessions, undo: nothing },
  },
  {
    ...{
      name: 'kill a broker',
      weight: 3,
      part: 'kafka',
      down: null,
      meets: 'all',
      holdMs: [0, 6_000],
    },
    apply: async (scene) => anyBroker(scene)?.kill(),
    undo: returned,
  },
  {
    ...{
      name: 'freeze a broker',
      weight: 2,
      part: 'kafka',
      down: null,
      meets: 'all',
      holdMs: [1_000, 20_000],
    },
    apply: async (scene) => anyBroker(scene)?.kill('SIGSTOP'),
    undo: returned,
  },
  {
    ...{
      name: 'restart a broker',
      weight: 1,
      part: 'kafka',
      down: null,
      meets: 'all',
      holdMs: [0, 3_000],
    },
    apply: async (scene) => anyBroker(scene)?.stop(),
    undo: returned,
  },
  {
    ...{ name: 'stop the registry', weight: 2, part: 'registry', down: null, meets: 'all' },
    holdMs: [0, 5_000],
    apply: async ({ sandbox }) => sandbox.registry?.stop(),
    undo: async ({ sandbox }) => sandbox.registry?.start(),
  },
  {
    ...{
      name: 'fence the publisher',
      weight: 3,
      part: 'session',
      down: null,
      meets: 'all',
      holdMs: [0, 100],
    },
    apply: fence,
    undo: nothing,
  },
];

/** Draws by weight among the faults that disturb none of the given parts. */
export function drawFault(random: () => number, taken: ReadonlySet<Fault['part']>): Fault | null {
  const left = faults.filter(({ part }) => !taken.has(part));
  let at = random() * left.reduce((sum, { weight }) => sum + weight, 0);
  for (const fault of left) {
    at -= fault.weight;
    if (at < 0) return fault;
  }
  return null;
}

export function nodesMet({ meets }: Fault, { run, random }: Scene): readonly NodeName[] {
  if (meets === 'all') return run.nodes;
  if (meets === 'leader') return [run.leader];
  const { followers } = run;
  const drawn = followers[Math.floor(random() * followers.length)];
  return drawn === undefined ? [] : [drawn];
}
