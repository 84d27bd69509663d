/**
 * Registers schemas, and reads them by id as their writer registered them, with the attributes
 * (`pgType`, `columnId`) that an Avro library drops. Both directions are cached for the life of the
 * object, so that a schema is registered and read back once. Our subjects have compatibility NONE:
 * readers decode by the writer's schema, and a table may change in ways that no compatibility level
 * allows.
 *
 * The registry client is used for its requests only. Its register() parses the schema, and fails
 * where a subject has another compatibility level.
 */
import createApi from '@kafkajs/confluent-schema-registry/dist/api/index.js';
import { otherSchema, registryRefusesSchema, schemaMissing } from '../errors/prerequisite.ts';
import { unknownRegistryAnswer } from '../errors/topic.ts';
import type { UnderstudyError } from '../errors/understudy-error.ts';
import { registryRefusesLogin, registryUnreachable } from '../errors/unreachable.ts';
import type { Logger } from '../logger.ts';
import { boundedDelayMs, type Clock, systemClock } from '../waiting.ts';

export interface RegistrySettings {
  readonly url: string;
  readonly auth?: { readonly username: string; readonly password: string };
}

export interface SchemaRegistry {
  /**
   * The id of the schema under the subject; registers it when it is missing. An id that belongs to
   * another schema is refused: rows written under it would be misread.
   */
  register(subject: string, schema: object): Promise<number>;
  /** The schema as it was registered. */
  schemaById(id: number): Promise<object>;
  /** Requests the list of subjects: whether the registry answers and accepts the login. */
  probe(): Promise<void>;
}

type Api = ReturnType<typeof createApi.default>;

/** A registry answers within milliseconds; one that starts or elects a leader takes seconds. */
const answerTimeoutMs = 10_000;
/** Six attempts last 3 to 6 s together, besides the time the registry takes. */
const attemptsMax = 6;
const pauses = { baseMs: 200, capMs: 3_200 };

class ConfluentRegistry implements SchemaRegistry {
  readonly #api: Api;
  readonly #shownUrl: string;
  readonly #log: Pick<Logger, 'debug'>;
  readonly #clock: Clock;
  readonly #ids = new Map<string, Promise<number>>();
  readonly #schemas = new Map<number, Promise<object>>();
  /** Subjects that take any change, or will soon. */
  readonly #openSubjects = new Set<string>();
  #opening: Promise<void> = Promise.resolve();

  constructor(settings: RegistrySettings, log: Pick<Logger, 'debug'>, clock: Clock) {
    const url = new URL(settings.url);
    const username = settings.auth?.username ?? decodeURIComponent(url.username);
    const password = settings.auth?.password ?? decodeURIComponent(url.password);
    const host = `${url.origin}${url.pathname}`.replace(/\/+$/, '');
    this.#api = createApi.default({
      host,
      clientId: 'understudy',
      retry: { retries: 0 },
      ...(username !== '' && { auth: { username, password } }),
    });
    this.#shownUrl = host;
    this.#log = log;
    this.#clock = clock;
  }

  register(subject: string, schema: object): Promise<number> {
    const key = `${subject}\n${canonicalJson(schema)}`;
    return cached(this.#ids, key, async () => {
      const body = { schema: JSON.stringify(schema) };
      const send = () => this.#api.Subject.register({ ...timed, subject, body });
      let answer = await this.#request(send, conflict);
      if (answer === null) {
        await this.#allowAnyChange(subject);
        answer = await this.#request(send);
      }
      const id = answer?.['id'];
      if (typeof id !== 'number')
        throw unknownRegistryAnswer(this.#shownUrl, `the registration of ${subject}`);
      // rule: registry-id-is-compared
      if (!isSame(schema, await this.schemaById(id))) {
        throw otherSchema(this.#shownUrl, subject, id);
      }
      this.#openLater(subject);
      return id;
    });
  }

  /**
   * Rows wait for the id of their schema and not for this: a subject that has another level refuses
   * a later schema, and is changed then. One after the other, beside what rows wait for.
   */
  #openLater(subject: string): void {
    if (this.#openSubjects.has(subject)) return;
    this.#openSubjects.add(subject);
    this.#opening = this.#opening
      .then(() => this.#allowAnyChange(subject))
      .catch((error: unknown) => {
        this.#openSubjects.delete(subject);
        this.#log.debug({ error, subject }, 'setting the compatibility of a subject failed');
      });
  }

  schemaById(id: number): Promise<object> {
    return cached(this.#schemas, id, async () => {
      const answer = await this.#findSchema(id);
      if (answer === null) throw schemaMissing(this.#shownUrl, id);
      const text = answer['schema'];
      const schema: unknown = typeof text === 'string' ? JSON.parse(text) : null;
      if (!isObject(schema))
        throw unknownRegistryAnswer(this.#shownUrl, `the request for schema ${id}`);
      return schema;
    });
  }

  /** One of several registry instances may know a new schema a moment later than another. */
  async #findSchema(id: number) {
    for (let attempts = 1; ; attempts += 1) {
      const answer = await this.#request(() => this.#api.Schema.find({ ...timed, id }), notFound);
      if (answer !== null || attempts === attemptsMax) return answer;
      await this.#clock.sleep(boundedDelayMs(attempts, pauses, this.#clock.random));
    }
  }

  async probe(): Promise<void> {
    await this.#request(() => this.#api.Subject.all(timed));
  }

  /** Sets the subject's level to NONE unless it has it. */
  async #allowAnyChange(subject: string): Promise<void> {
    const body = { compatibility: 'NONE' };
    const config = await this.#request(
      () => this.#api.Subject.config({ ...timed, subject }),
      notFound,
    );
    if (config?.['compatibilityLevel'] === 'NONE') return;
    await this.#request(() => this.#api.Subject.updateConfig({ ...timed, subject, body }));
  }

  /** Retries what a registry refuses while it starts or fails over; null for `absentStatus`. */
  async #request(
    send: () => Promise<{ data(): unknown }>,
    absentStatus?: number,
  ): Promise<Readonly<Record<string, unknown>> | null> {
    for (let attempts = 1; ; attempts += 1) {
      try {
        const answer = (await send()).data();
        return isObject(answer) ? answer : {};
      } catch (error) {
        const status = statusOf(error);
        if (status !== null && status === absentStatus) return null;
        const isTransient = status === null || status >= 500 || status === tooManyRequests;
        if (!isTransient || attempts === attemptsMax) throw this.#explain(error, status);
        this.#log.debug({ status, attempts }, 'request to the schema registry failed, retrying');
      }
      await this.#clock.sleep(boundedDelayMs(attempts, pauses, this.#clock.random));
    }
  }

  #explain(error: unknown, status: number | null): UnderstudyError {
    // The client puts its name and the registry's own words into the message, never a header.
    const reason = reasonOf(error, status);
    if (status === 401 || status === 403) {
      return registryRefusesLogin(this.#shownUrl, status, error);
    }
    if (status !== null && status < 500 && status !== tooManyRequests && status !== notFound) {
      return registryRefusesSchema(this.#shownUrl, status, reason, error);
    }
    return registryUnreachable(this.#shownUrl, reason, error);
  }
}

const timed = { timeout: answerTimeoutMs } as const;
const notFound = 404;
/** Incompatible with the schema before it, under the subject's level. */
const conflict = 409;
const tooManyRequests = 429;

/** Null when there was no answer: the client reports that as a 400 without an error of its own. */
function statusOf(error: unknown): number | null {
  if (!(error instanceof Error)) return null;
  const { status } = error as { readonly status?: unknown };
  if (typeof status !== 'number') return null;
  return status === 400 && error.message.includes('Error, status 400') ? null : status;
}

/**
 * The first line, without the client's name and the status that it invents. The client takes the
 * answer of any server for a registry's: where it has another form, only the status is known.
 */
function reasonOf(error: unknown, status: number | null): string {
  const message = error instanceof Error ? error.message : String(error);
  const line = message.split('\n', 1)[0] ?? '';
  if (line.includes('[object Object]')) return `it answers with status ${status ?? 'unknown'}`;
  return line.replace(/^understudy - (Error, status 400: )?/, '');
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null;
}

/**
 * The members that decide what a record written under the id means to its readers. Registries
 * rewrite the rest of a schema in their own way.
 */
function isSame(wanted: object, found: object): boolean {
  return canonicalJson(meaningOf(wanted)) === canonicalJson(meaningOf(found));
}

function meaningOf(schema: object): unknown {
  const { name, relationId, fields } = schema as Readonly<Record<string, unknown>>;
  const named = String(name).split('.').pop();
  if (!Array.isArray(fields)) return { named };
  const columns = fields.map(({ name: field, pgType, columnId }) => ({ field, pgType, columnId }));
  return { named, relationId, columns };
}

/** The same text for the same schema, however its attributes are ordered. */
function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_, member: unknown) =>
    isObject(member) && !Array.isArray(member)
      ? Object.fromEntries(Object.entries(member).sort(([a], [b]) => (a < b ? -1 : 1)))
      : member,
  );
}

/** Caches the answer; a failure is not cached, so that the next call sends the request again. */
function cached<K, V>(known: Map<K, Promise<V>>, key: K, request: () => Promise<V>): Promise<V> {
  const present = known.get(key);
  if (present !== undefined) return present;
  const answer = request();
  known.set(key, answer);
  // The caller has the rejection; here it only clears the cache.
  answer.catch(() => known.delete(key));
  return answer;
}

/** Connects lazily. */
export function connectRegistry(
  settings: RegistrySettings,
  log: Pick<Logger, 'debug'>,
  clock: Clock = systemClock,
): SchemaRegistry {
  return new ConfluentRegistry(settings, log, clock);
}
