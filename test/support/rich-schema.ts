/**
 * A schema with what schemas are made of: every kind of object that a dump can carry, and the texts
 * and names that a reader of dumps is most likely to trip over. Flows in: names for its roles,
 * which belong to servers, not to databases; flows out: its SQL, for an empty database.
 */

export interface RichRoles {
  readonly owner: string;
  readonly reader: string;
}

/** Extensions that come with the server: those of them that it has. */
export const wantedExtensions = ['citext', 'pgcrypto', 'ltree', 'btree_gist'] as const;

export function richSchema(roles: RichRoles, extensions: readonly string[]): string {
  const made = extensions.map((name) => `CREATE EXTENSION ${name};`).join('\n');
  const citext = extensions.includes('citext') ? 'citext' : 'text';
  const ltree = extensions.includes('ltree') ? 'ltree' : 'text';
  return `
    SET search_path = public;
    ${made}
    ${typesAndFunctions}
    CREATE TABLE app.customer (
      id bigint GENERATED ALWAYS AS IDENTITY (START 100 INCREMENT 5) PRIMARY KEY,
      name text COLLATE "C" NOT NULL DEFAULT 'nobody; at all',
      mail ${citext} UNIQUE, path ${ltree}, mood app.mood DEFAULT 'so; so', address app.address,
      age app.positive CHECK (age < 200), active tstzrange, spans app.text_range,
      shown text GENERATED ALWAYS AS (lower(name)) STORED, tags text[] DEFAULT '{}');
    ${tables}
    ${afterTables}
    ALTER TABLE app.customer OWNER TO "${roles.owner}";
    ALTER FUNCTION app.total(integer) OWNER TO "${roles.owner}";
    GRANT USAGE ON SCHEMA app TO "${roles.reader}";
    GRANT SELECT ON app.customer TO "${roles.reader}" WITH GRANT OPTION;
    GRANT SELECT (id), UPDATE (amount) ON app.purchase TO "${roles.reader}";
    REVOKE EXECUTE ON FUNCTION app.total(integer) FROM PUBLIC;
    GRANT SELECT ON app.customer TO PUBLIC;
    SET SESSION AUTHORIZATION "${roles.reader}";
    GRANT SELECT ON app.customer TO "${roles.owner}";
    RESET SESSION AUTHORIZATION;
    ALTER DEFAULT PRIVILEGES FOR ROLE "${roles.owner}" IN SCHEMA app
      GRANT SELECT ON TABLES TO "${roles.reader}";
    CREATE POLICY own_rows ON app.purchase FOR SELECT TO "${roles.reader}" USING (customer_id > 0);
    CREATE POLICY "all; of it" ON app.purchase USING (true) WITH CHECK (customer_id IS NOT NULL);
    ALTER TABLE app.purchase ENABLE ROW LEVEL SECURITY;`;
}

const typesAndFunctions = `
  CREATE SCHEMA app;
  CREATE SCHEMA "Odd ""schema""; really";
  COMMENT ON SCHEMA app IS 'it''s; a -- comment
\\restrict not a command';
  CREATE TYPE app.mood AS ENUM ('fine', 'so; so', 'it''s bad', 'größer');
  CREATE TYPE app.address AS (street text, city text COLLATE "C");
  CREATE DOMAIN app.positive AS integer DEFAULT 1 CONSTRAINT above_zero CHECK (VALUE > 0);
  CREATE TYPE app.text_range AS RANGE (subtype = text, collation = "C");
  CREATE COLLATION app.any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
  CREATE SEQUENCE app.numbers AS smallint START 7 INCREMENT -1 MINVALUE -5 MAXVALUE 70 CYCLE
    CACHE 3;
  CREATE FUNCTION app.total(wanted integer) RETURNS bigint LANGUAGE sql STABLE
    BEGIN ATOMIC
      SELECT CASE WHEN wanted > 0 THEN 1 ELSE 2 END AS "end";
      SELECT count(*) FROM pg_catalog.pg_class WHERE relname <> 'a;b';
    END;
  CREATE FUNCTION app.half(i integer) RETURNS integer LANGUAGE sql IMMUTABLE RETURN i / 2;
  CREATE FUNCTION app.note() RETURNS trigger LANGUAGE plpgsql AS $_$
    BEGIN
      -- a comment with a quote: it's; $$ not the end $$
      EXECUTE format('SELECT %L', 'x;y') USING $1;
      RETURN NEW;
    END $_$;
  CREATE PROCEDURE app.clear() LANGUAGE sql BEGIN ATOMIC SELECT 1; END;
  CREATE AGGREGATE app.sum_up(integer) (SFUNC = int4pl, STYPE = integer, INITCOND = '0');
  CREATE OPERATOR app.=== (LEFTARG = text, RIGHTARG = text, FUNCTION = texteq);
  CREATE CAST (app.mood AS integer) WITH INOUT;
  CREATE TEXT SEARCH CONFIGURATION app.plain (COPY = pg_catalog.simple);`;

const tables = `
  CREATE FUNCTION app.customers() RETURNS bigint LANGUAGE sql STABLE
    AS 'SELECT count(*) FROM app.customer; ';
  CREATE TABLE app.purchase (
    id serial PRIMARY KEY, customer_id bigint NOT NULL REFERENCES app.customer
      ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    amount numeric(10, 2) NOT NULL DEFAULT 0, number smallint DEFAULT nextval('app.numbers'),
    at timestamptz DEFAULT now(), during int4range, CONSTRAINT sane CHECK (amount >= 0),
    EXCLUDE USING gist (during WITH &&));
  CREATE INDEX purchase_late ON app.purchase (at DESC NULLS LAST) WHERE amount > 100;
  CREATE INDEX purchase_half ON app.purchase (app.half(number), (lower('A;' || id)))
    INCLUDE (amount);
  CREATE TABLE app.chosen (a int NOT NULL, "B;" text NOT NULL, c text);
  CREATE UNIQUE INDEX "chosen;key" ON app.chosen ("B;", a);
  ALTER TABLE app.chosen REPLICA IDENTITY USING INDEX "chosen;key";
  CREATE TABLE app.by_constraint (a int NOT NULL CONSTRAINT uses_it UNIQUE);
  ALTER TABLE app.by_constraint REPLICA IDENTITY USING INDEX uses_it;
  CREATE TABLE app.whole (id int PRIMARY KEY, v text);
  ALTER TABLE app.whole REPLICA IDENTITY FULL;
  CREATE TABLE "Odd ""schema""; really"."Ta""ble; 'x' $$ (" (
    "Co""lumn; --" int PRIMARY KEY, "größe" text DEFAULT E'back\\\\slash;');
  COMMENT ON COLUMN "Odd ""schema""; really"."Ta""ble; 'x' $$ ("."größe" IS $$it's $1; /* odd$$;
  CREATE TABLE app.event (at date NOT NULL, id int NOT NULL, kind text, PRIMARY KEY (at, kind, id))
    PARTITION BY RANGE (at);
  CREATE TABLE app.event_old PARTITION OF app.event FOR VALUES FROM (MINVALUE) TO ('2020-01-01');
  CREATE TABLE app.event_new PARTITION OF app.event FOR VALUES FROM ('2020-01-01') TO (MAXVALUE)
    PARTITION BY LIST (kind);
  CREATE TABLE app.event_new_other PARTITION OF app.event_new DEFAULT;
  CREATE INDEX event_kind ON app.event (kind);
  CREATE TABLE app.base (id int PRIMARY KEY, v text);
  CREATE TABLE app.derived (extra int, PRIMARY KEY (id)) INHERITS (app.base);
  CREATE UNLOGGED TABLE app.scratch (id serial PRIMARY KEY);`;

const afterTables = `
  CREATE VIEW app.shown WITH (security_barrier) AS
    SELECT c.id, c.name || ';' AS "na;me", app.half(p.number) FROM app.customer c
    JOIN app.purchase p ON p.customer_id = c.id WHERE c.mood <> 'so; so';
  CREATE MATERIALIZED VIEW app.summed AS
    SELECT customer_id, sum(amount) FROM app.purchase GROUP BY 1 WITH NO DATA;
  CREATE UNIQUE INDEX summed_key ON app.summed (customer_id);
  CREATE RULE keep AS ON INSERT TO app.whole DO ALSO
    (UPDATE app.whole SET v = 'a;b' WHERE id = NEW.id; DELETE FROM app.base WHERE id = NEW.id);
  CREATE TRIGGER note BEFORE INSERT ON app.customer FOR EACH ROW EXECUTE FUNCTION app.note('a;b');
  CREATE CONSTRAINT TRIGGER later AFTER UPDATE ON app.purchase DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (OLD.amount IS DISTINCT FROM NEW.amount) EXECUTE FUNCTION app.note();
  ALTER TABLE app.purchase DISABLE TRIGGER later;
  CREATE STATISTICS app.related (dependencies) ON customer_id, amount FROM app.purchase;
  ALTER TABLE app.purchase ADD CONSTRAINT unchecked CHECK (amount < 1e9) NOT VALID;
  COMMENT ON INDEX app.purchase_late IS 'only; large';`;
