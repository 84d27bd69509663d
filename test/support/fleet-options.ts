/**
 * What a fleet under test is made of, and the understudy.yaml that says the same: one for all, and
 * one for each node that reaches its servers by links of its own.
 */
import { ddlSetting } from '../../scripts/sandbox/fitting-dump.ts';
import type { PostgresServer } from '../../scripts/sandbox/sandbox.ts';
import type { Stack } from './stack.ts';

export type NodeName = 'a' | 'b' | 'c';

/** Addresses that the agent of one node uses instead of the common ones. */
export interface NodeLinks {
  readonly url?: (url: string) => string;
  readonly brokers?: readonly string[];
  readonly registryUrl?: string;
}

export interface FleetOptions {
  /** Of a test that needs more of it; else the fleet has one of its own. */
  readonly stack?: Stack;
  /** 2 (a and b, the default) or 3. Node a leads after init. */
  readonly nodes?: 2 | 3;
  /** Those that `init` initialises; the others join the file afterwards. Default: all. */
  readonly initialised?: readonly NodeName[];
  readonly partitions?: number;
  /** Settings of the topic, for `kafka.topic` in understudy.yaml. */
  readonly topic?: Readonly<Record<string, string>>;
  /** SQL that is run on every node before init. */
  readonly tables?: string;
  /** SQL for one node, after `tables`. */
  readonly tablesOn?: Partial<Record<NodeName, string>>;
  /** The clauses of CREATE DATABASE after the name, from node a on. */
  readonly databases?: readonly string[];
  /** Servers to use instead of the stack's, for tests that stop them. */
  readonly servers?: Partial<Record<NodeName, PostgresServer>>;
  /** Instead of the stack's brokers. */
  readonly brokers?: readonly string[];
  readonly registryUrl?: string;
  readonly links?: Partial<Record<NodeName, NodeLinks>>;
  /** False leaves `init` to the test. */
  readonly init?: boolean;
}

/** No server listens there. */
export const unusedAddress = '127.0.0.1:9';

export type Config = Record<string, unknown>;

export async function configOf(
  options: FleetOptions,
  stack: Stack,
  urls: ReadonlyMap<NodeName, string>,
): Promise<Config> {
  return {
    cluster: stack.uniqueName('fleet'),
    nodes: Object.fromEntries([...urls].map(([name, url]) => [name, { url }])),
    kafka: {
      brokers: options.brokers ?? stack.brokers,
      partitions: options.partitions ?? 1,
      ...(options.topic && { topic: options.topic }),
    },
    registry: { url: options.registryUrl ?? stack.registryUrl },
    ...(await ddlSetting(urls.get('a') ?? '')),
  };
}

/** The same with some of the nodes only. */
export function withNodes(config: Config, names: readonly NodeName[]): Config {
  const all = Object.entries(config['nodes'] as object);
  const chosen = all.filter(([name]) => names.includes(name as NodeName));
  return { ...config, nodes: Object.fromEntries(chosen) };
}

/** The configuration of a node that has links of its own. */
export function linked(config: Config, node: string, links: NodeLinks): Config {
  const nodes = config['nodes'] as Record<string, { url: string }>;
  const url = nodes[node]?.url ?? '';
  const { brokers, registryUrl } = links;
  return {
    ...config,
    nodes: { ...nodes, [node]: { ...nodes[node], url: links.url?.(url) ?? url } },
    kafka: { ...(config['kafka'] as object), ...(brokers && { brokers }) },
    ...(registryUrl && { registry: { url: registryUrl } }),
  };
}
