/**
 * The configuration of a fleet: understudy.yaml and the environment as typed settings. Settings
 * that hold secrets (node URLs, Kafka, registry) are expanded when they are read, so a process
 * needs only the variables of the servers that it uses, and `redact` then knows the secrets that
 * must not be printed. Only the command line and the commands may read it.
 */
import { readFileSync } from 'node:fs';
import { basename, dirname, isAbsolute, resolve } from 'node:path';
import {
  halfClientCertificate,
  invalidBroker,
  invalidNodeUrl,
  invalidRegistryUrl,
  unknownNode,
  unreadableConfig,
  unreadablePem,
} from '../errors/usage.ts';
import { redactSecrets } from '../redact.ts';
import { type Environment, expandVariables } from './expand.ts';
import { readConfigText } from './file.ts';
import type { ConfigFile } from './schema.ts';
import { nearestWord } from './suggest.ts';

interface TlsConfig {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly rejectUnauthorized?: boolean;
}

interface SaslConfig {
  readonly mechanism: 'plain' | 'scram-sha-256' | 'scram-sha-512';
  readonly username: string;
  readonly password: string;
}

interface KafkaConfig {
  /** `host:port`, at least one. */
  readonly brokers: readonly string[];
  readonly ssl: boolean | TlsConfig;
  readonly sasl: SaslConfig | null;
}

interface RegistryConfig {
  /** Without a closing slash. */
  readonly url: string;
  readonly auth: { readonly username: string; readonly password: string } | null;
}

/** With what `init` creates the topics; nothing in it is a secret. */
interface TopicConfig {
  readonly partitions: number;
  /** null is min(3, brokers). */
  readonly replication: number | null;
  /** Topic settings by their Kafka names; they override those of this product. */
  readonly overrides: Readonly<Record<string, string>>;
}

interface ConfigSource {
  readonly text: string;
  /** How errors name the file. */
  readonly name: string;
  /** The paths of certificates are relative to it. */
  readonly directory: string;
  readonly environment: Environment;
}

export class Config {
  readonly cluster: string;
  readonly nodeNames: readonly string[];
  /** Globs `schema.table`; null is all ordinary tables. */
  readonly tables: readonly string[] | null;
  /** How tables without an identity are treated. */
  readonly keyless: 'refuse' | 'append';
  readonly topic: TopicConfig;
  readonly pointsEveryMs: number;
  readonly maintenanceDatabase: string;
  /** What the agent of a follower that was offline too long does. */
  readonly rebuild: 'swap' | 'in-place' | 'manual';
  /** Whether tables are created by hand on every node: else `init` copies the schema. */
  readonly isSchemaManual: boolean;
  /** Whether the leader refuses schema changes that the stream cannot carry. */
  readonly refusesDdl: boolean;
  readonly #file: ConfigFile;
  readonly #source: ConfigSource;
  readonly #secrets = new Set<string>();

  constructor(source: ConfigSource) {
    const file = readConfigText(source.text, source.name);
    this.#file = file;
    this.#source = source;
    this.cluster = file.cluster;
    this.nodeNames = Object.keys(file.nodes);
    this.tables = file.tables;
    this.keyless = file.keyless;
    this.topic = {
      partitions: file.kafka.partitions,
      replication: file.kafka.replication,
      overrides: Object.fromEntries(
        Object.entries(file.kafka.topic).map(([name, value]) => [name, String(value)]),
      ),
    };
    this.pointsEveryMs = file.points.every;
    this.maintenanceDatabase = file.maintenanceDatabase;
    this.rebuild = file.rebuild;
    this.isSchemaManual = file.ddl === 'manual';
    this.refusesDdl = file.ddl === 'refuse';
  }

  /** The pg_dump to run: a name on the PATH, or a path. */
  get pgDump(): string {
    return this.#expand(this.#file.pgDump, 'pgDump');
  }

  /** Throws NODE_UNKNOWN for a name the file does not have. */
  requireNode(name: string): void {
    if (this.nodeNames.includes(name)) return;
    const nearest = nearestWord(name, this.nodeNames);
    throw unknownNode(this.#source.name, name, nearest, this.nodeNames);
  }

  /** The node applies no change that is younger; 0 is no delay. */
  delayMs(name: string): number {
    return this.#file.nodes[name]?.delay ?? 0;
  }

  /** The connection URL of one node. It holds a password: never print it. */
  nodeUrl(name: string): string {
    this.requireNode(name);
    const key = `nodes.${name}.url`;
    const url = this.#expand(this.#file.nodes[name]?.url ?? '', key);
    this.#keepUrlSecrets(url);
    checkPostgresUrl(url, key);
    return url;
  }

  kafka(): KafkaConfig {
    const { brokers, ssl, sasl } = this.#file.kafka;
    const expanded = brokers.flatMap((broker, at) => this.#brokers(broker, `kafka.brokers.${at}`));
    return {
      brokers: expanded,
      ssl: typeof ssl === 'boolean' ? ssl : this.#tls(ssl),
      sasl: sasl === null ? null : { ...sasl, ...this.#login(sasl, 'kafka.sasl') },
    };
  }

  registry(): RegistryConfig {
    const { url, auth } = this.#file.registry;
    const expanded = this.#expand(url, 'registry.url');
    this.#keepUrlSecrets(expanded);
    const parsed = URL.canParse(expanded) ? new URL(expanded) : null;
    if (parsed === null || !['http:', 'https:'].includes(parsed.protocol)) {
      throw invalidRegistryUrl();
    }
    return {
      url: expanded.replace(/\/+$/, ''),
      auth: auth === null ? null : this.#login(auth, 'registry.auth'),
    };
  }

  /** Removes from a text every secret that this configuration has returned so far. */
  redact(text: string): string {
    return redactSecrets(text, this.#secrets);
  }

  #expand(raw: string, key: string): string {
    return expandVariables(raw, key, this.#source.environment);
  }

  /** One entry may expand to several brokers: `${KAFKA}` is often `a:9092,b:9092`. */
  #brokers(raw: string, key: string): string[] {
    const brokers = this.#expand(raw, key)
      .split(',')
      .map((broker) => broker.trim());
    if (brokers.every((broker) => /^(\[[0-9a-f:.]+\]|[^\s:/@[\]]+):[0-9]{1,5}$/i.test(broker))) {
      return brokers;
    }
    throw invalidBroker(key);
  }

  #login(login: { readonly username: string; readonly password: string }, key: string) {
    const password = this.#expand(login.password, `${key}.password`);
    this.#secrets.add(password);
    return { username: this.#expand(login.username, `${key}.username`), password };
  }

  #tls(ssl: Exclude<ConfigFile['kafka']['ssl'], boolean>): TlsConfig {
    const { ca, cert, key, rejectUnauthorized } = ssl;
    if ((cert === undefined) !== (key === undefined)) {
      throw halfClientCertificate();
    }
    return {
      ...(ca === undefined ? {} : { ca: this.#pem(ca, 'kafka.ssl.ca') }),
      ...(cert === undefined ? {} : { cert: this.#pem(cert, 'kafka.ssl.cert') }),
      ...(key === undefined ? {} : { key: this.#pem(key, 'kafka.ssl.key') }),
      ...(rejectUnauthorized === undefined ? {} : { rejectUnauthorized }),
    };
  }

  #pem(raw: string, key: string): string {
    const value = this.#expand(raw, key);
    if (value.trimStart().startsWith('-----BEGIN')) {
      this.#secrets.add(value);
      return value;
    }
    const path = isAbsolute(value) ? value : resolve(this.#source.directory, value);
    try {
      return readFileSync(path, 'utf8');
    } catch (cause) {
      throw unreadablePem(key, errnoOf(cause), cause);
    }
  }

  #keepUrlSecrets(url: string): void {
    for (const secret of secretsOfUrl(url)) this.#secrets.add(secret);
  }
}

interface ConfigLocation {
  /** The value of --config, if it was given. */
  readonly option: string | undefined;
  readonly workingDirectory: string;
  readonly environment: Environment;
}

/** Reads --config, else UNDERSTUDY_CONFIG, else ./understudy.yaml. */
export function loadConfig(location: ConfigLocation): Config {
  const { option, workingDirectory, environment } = location;
  const named = option ?? (environment.UNDERSTUDY_CONFIG || undefined) ?? 'understudy.yaml';
  const path = resolve(workingDirectory, named);
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    throw unreadableConfig(named, errnoOf(cause), cause);
  }
  return new Config({ text, name: basename(path), directory: dirname(path), environment });
}

function errnoOf(cause: unknown): string {
  if (typeof cause === 'object' && cause !== null && 'code' in cause) return String(cause.code);
  return 'unknown reason';
}

function checkPostgresUrl(url: string, key: string): void {
  if (!/^postgres(ql)?:\/\//.test(url)) {
    throw invalidNodeUrl(key, 'does not begin with postgres:// or postgresql://');
  }
  if (!URL.canParse(url)) {
    const escapes = 'Escape @ : / ? # % and spaces in the password (@ is %40, / is %2F).';
    throw invalidNodeUrl(key, 'is not a URL', escapes);
  }
  const { pathname } = new URL(url);
  if (pathname.replace(/^\//, '') === '') throw invalidNodeUrl(key, 'names no database');
}

/** Credentials alone: hosts, ports and names of databases belong into messages. */
function secretsOfUrl(url: string): string[] {
  const parsed = URL.canParse(url) ? new URL(url) : null;
  const isHttp = /^https?:$/.test(parsed?.protocol ?? '');
  if (parsed === null || !(isHttp || /^postgres(ql)?:$/.test(parsed.protocol))) {
    // Which part of it is a password is not known.
    return /@|password/i.test(url) ? [url] : [];
  }
  const { username, password, searchParams } = parsed;
  // Some registries take a token in the place of the name.
  const token = isHttp && password === '' ? username : '';
  const values = [password, token, ...searchParams.getAll('password')];
  return values.flatMap((value) => [value, decoded(value)]).filter((text) => text !== '');
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    // A lone % is not an escape: then the text is taken as it is.
    return text;
  }
}
