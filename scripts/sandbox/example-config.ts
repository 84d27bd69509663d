/**
 * What a sandbox tells of itself in text. Flows in: its addresses. Flows out: an understudy.yaml
 * for them, and lines for a shell.
 */
import { stringify } from 'yaml';

export interface SandboxAddresses {
  readonly nodes: readonly { readonly name: string; readonly url: string }[];
  readonly brokers: readonly string[];
  readonly registryUrl: string | null;
  /** What this machine's pg_dump leaves to be done by hand. */
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

/** Single quotes, because nothing is special between them but the quote itself. */
export function exportLines(env: Readonly<Record<string, string>>): string {
  return Object.entries(env)
    .map(([name, value]) => `export ${name}='${value.replaceAll("'", `'\\''`)}'\n`)
    .join('');
}
