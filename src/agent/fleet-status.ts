import type { Cluster } from './cluster.ts';
export async function fleetStatus(_cluster: Cluster): Promise<object> {
  return {};
}
