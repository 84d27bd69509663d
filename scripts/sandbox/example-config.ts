/**
 * The addresses of a sandbox as text: an understudy.yaml for its servers, and lines for a shell.
 */
import { stringify } from 'yaml';

export interface SandboxAddresses {
  readonly nodes: readonly { readonly name: string; readonly url: string }[];
  readonly brokers: readonly string[];
  readonly registryUrl: string | null;
  /** Where no pg_dump on this machine fits, tables are created by hand. */
  readonly ddl?: 'manual';
}

export function exampleConfig(addresses: SandboxAddresses): string {
  const { nodes, brokers, registryUrl, ddl } = addresses;
  return stringify({
    cluster: 'shop',
    nodes: Object.fromEntries(nodes.map(({ name, url }) => [name, { url }])),
    kafka: { brokers: [...brokers] },
    ...(registryUrl === null ? {} : { registry: { url: registryUrl } }),
    ...(ddl === undefined ? {} : { ddl }),
  });
}

/** In single quotes only the quote itself is special. */
export function exportLines(env: Readonly<Record<string, string>>): string {
  return Object.entries(env)
    .map(([name, value]) => `export ${name}='${value.replaceAll("'", `'\\''`)}'\n`)
    .join('');
}
