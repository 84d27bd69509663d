-- The `understudy` schema of one node's database: what the node is, its position in the stream, and
-- the functions that its users call. Running it again changes nothing and repairs functions. Every
-- function pins its search_path, so that no object of a caller can replace one of ours. Whatever
-- changes a table or the result of a function needs a new format: an upgrade-N.sql beside this file.

CREATE SCHEMA IF NOT EXISTS understudy;

-- Who this node is. One row.
CREATE TABLE IF NOT EXISTS understudy.node (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  cluster text NOT NULL,
  name text NOT NULL,
  stream_id text NOT NULL,
  role text NOT NULL CHECK (role IN ('leader', 'follower')),
  epoch integer NOT NULL,
  start_number bigint NOT NULL,
  -- Transactions that began later run the event trigger understudy_watch.
  watched_since timestamptz,
  format integer NOT NULL
);

-- Up to where this node has applied the stream, committed with the rows. One row, on a follower.
CREATE TABLE IF NOT EXISTS understudy.position (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  stream_id text NOT NULL,
  epoch integer NOT NULL,
  -- Exclusive: what commits below it, strictly, is here.
  upto pg_lsn NOT NULL,
  commit_time_us bigint NOT NULL,
  -- The last common point, at or below the position, and the offsets after it in each partition.
  mark_epoch integer NOT NULL,
  mark_upto pg_lsn NOT NULL,
  next_offsets bigint[] NOT NULL,
  last_append_ms bigint[] NOT NULL,
  -- From then on no agent applies here any more: the node is a database of its own.
  detached boolean NOT NULL DEFAULT false,
  -- Relation ids of tables that are backfilling.
  unfinished text[] NOT NULL DEFAULT '{}',
  format integer NOT NULL
);

-- The state of a node that is being built from the topic alone, committed with the rows. One row
-- until the node is exact, none before and after: while it exists, rows may be wrong.
CREATE TABLE IF NOT EXISTS understudy.bootstrap (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  state jsonb NOT NULL
);

-- The pending rebuild of this follower: why and how. One row until its tables are emptied for it,
-- or until another database has replaced this one; in that one, the database that is to be dropped.
CREATE TABLE IF NOT EXISTS understudy.rebuild (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  way text NOT NULL CHECK (way IN ('swap', 'in-place')),
  reason text NOT NULL,
  -- The database beside this one, and its progress.
  beside oid,
  progress jsonb,
  replaces oid
);

-- What makes the rows of this follower doubtful: a row was missing when the log changed it
-- (damaged), or `verify` found rows that are not the leader's (different). Until `verify` finds all
-- rows equal, or the node is rebuilt, it is not exact and cannot be promoted.
CREATE TABLE IF NOT EXISTS understudy.doubts (
  kind text PRIMARY KEY CHECK (kind IN ('damaged', 'different')),
  what text NOT NULL,
  found timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The last error of this node's agent, for `status`. One row while the node is not in its role.
CREATE TABLE IF NOT EXISTS understudy.agent_error (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  code text NOT NULL,
  message text NOT NULL,
  at timestamptz NOT NULL
);

-- The epochs that are not void, from the first to the one of this node's position.
CREATE TABLE IF NOT EXISTS understudy.epochs (
  epoch integer PRIMARY KEY,
  leader text NOT NULL,
  system_id text NOT NULL,
  timeline integer NOT NULL,
  -- What the epoch continues; null for the first.
  base_epoch integer,
  base_upto pg_lsn,
  start_lsn pg_lsn NOT NULL,
  CHECK ((base_epoch IS NULL) = (base_upto IS NULL) AND base_epoch < epoch)
);

-- Tables of the stream. Rows are never deleted: a relation id is never reused.
CREATE TABLE IF NOT EXISTS understudy.relations (
  relation_id text PRIMARY KEY,
  table_oid oid UNIQUE,
  schema_name text NOT NULL,
  table_name text NOT NULL,
  -- Column ids, in the order of the identity's index.
  identity text[] NOT NULL,
  dropped boolean NOT NULL,
  -- Of a table that entered the stream with rows: the end of this node's WAL then. A read of its
  -- rows sees what commits below.
  entered_lsn pg_lsn
);

-- Tables that were published and cannot be in the stream: the WAL has changes of them that belong
-- to no relation, also after they are dropped or removed from the publication.
CREATE TABLE IF NOT EXISTS understudy.outside (
  table_oid oid PRIMARY KEY
);

-- Their columns. Rows are never deleted; attnum and ordinal are null once the column is dropped.
CREATE TABLE IF NOT EXISTS understudy.columns (
  relation_id text NOT NULL REFERENCES understudy.relations,
  column_id text NOT NULL,
  attnum smallint,
  name text NOT NULL,
  type text NOT NULL,
  nullable boolean NOT NULL,
  missing text,
  ordinal integer,
  PRIMARY KEY (relation_id, column_id)
);

-- Tables that entered the stream with rows of their own, until a point names them.
CREATE TABLE IF NOT EXISTS understudy.to_read (
  relation_id text PRIMARY KEY REFERENCES understudy.relations
);

-- Partitions of a table under resnapshot that were not in the stream yet: their rows were not sent.
CREATE TABLE IF NOT EXISTS understudy.unread_partitions (
  table_oid oid PRIMARY KEY
);

-- Tables under resnapshot on a follower. The keys written since are in seen_<number>; rows with
-- other keys are deleted at the end.
CREATE TABLE IF NOT EXISTS understudy.rereads (
  relation_id text PRIMARY KEY REFERENCES understudy.relations,
  number integer NOT NULL GENERATED ALWAYS AS IDENTITY
);

-- Labels of points; on the leader the position is filled in once the point is published.
CREATE TABLE IF NOT EXISTS understudy.points (
  label text PRIMARY KEY CHECK (label ~ '^[a-z][a-z0-9_.-]{0,62}$'),
  epoch integer,
  upto pg_lsn,
  commit_time_us bigint,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- What determines the text of stored values: the labels of an enum, the attributes of a composite
-- type, as they were when a table with such a column entered the stream.
CREATE TABLE IF NOT EXISTS understudy.type_texts (
  type_oid oid PRIMARY KEY,
  texts jsonb NOT NULL
);

-- What the identity of a table of the stream takes for equal, as it was when the table entered.
CREATE TABLE IF NOT EXISTS understudy.key_equalities (
  table_oid oid PRIMARY KEY,
  columns text NOT NULL,
  equality text NOT NULL
);

-- Tables whose rows changed, or may have, without a row message: rewritten by ALTER TABLE, attached
-- with rows as a partition, out of the publication for a while, of a type whose values have another
-- text now, or with keys that are equal to others now. The leader's agent stops at the first entry.
CREATE TABLE IF NOT EXISTS understudy.unseen_changes (
  table_oid oid NOT NULL,
  what text NOT NULL,
  PRIMARY KEY (table_oid, what)
);

-- The table that a table of the stream is a partition of, as it was when the table entered; 0 is none.
CREATE TABLE IF NOT EXISTS understudy.partition_parents (
  table_oid oid PRIMARY KEY,
  parent_oid oid NOT NULL
);

-- What the stream cannot carry on this leader, as the clients that changed it were warned.
CREATE TABLE IF NOT EXISTS understudy.schema_changes (
  table_name text NOT NULL,
  what text NOT NULL,
  changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (table_name, what)
);

-- Whether such a change is refused: `ddl: refuse` of understudy.yaml. No row: it is not.
CREATE TABLE IF NOT EXISTS understudy.ddl_policy (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  refuse boolean NOT NULL
);

-- ENABLE ALWAYS and REPLICA triggers that are disabled while this node follows.
CREATE TABLE IF NOT EXISTS understudy.held_triggers (
  schema_name text NOT NULL,
  table_name text NOT NULL,
  trigger_name text NOT NULL,
  mode "char" NOT NULL CHECK (mode IN ('A', 'R')),
  PRIMARY KEY (schema_name, table_name, trigger_name)
);

-- Rules likewise.
CREATE TABLE IF NOT EXISTS understudy.held_rules (
  schema_name text NOT NULL,
  table_name text NOT NULL,
  rule_name text NOT NULL,
  mode "char" NOT NULL CHECK (mode IN ('A', 'R')),
  PRIMARY KEY (schema_name, table_name, rule_name)
);

-- Statements of the leader's schema that build it here, each recorded as done in the transaction
-- that runs it. Empty where the tables existed before.
CREATE TABLE IF NOT EXISTS understudy.schema_build (
  ordinal integer PRIMARY KEY,
  -- Before the rows are read, or once they are exact.
  phase text NOT NULL CHECK (phase IN ('pre-data', 'post-data')),
  statement text NOT NULL,
  -- SET statements under which it is run.
  settings text[] NOT NULL,
  done boolean NOT NULL DEFAULT false,
  -- Roles that this server does not have, because of which it was not run.
  missing_roles text[] NOT NULL DEFAULT '{}',
  -- The last error with which Postgres refused the statement, which is retried.
  refused text,
  -- Whether it is a foreign key that was created NOT VALID: not every row here fulfils it.
  not_valid boolean NOT NULL DEFAULT false
);

-- How far the leader's sequences were, as this follower read it in the topic. `stride` is how far one
-- moved between two reads of the leader: at a promotion it may have moved on by as much.
CREATE TABLE IF NOT EXISTS understudy.sequences (
  schema_name text NOT NULL,
  sequence_name text NOT NULL,
  last_value bigint NOT NULL,
  is_called boolean NOT NULL,
  stride bigint NOT NULL,
  PRIMARY KEY (schema_name, sequence_name)
);

-- The schema in the topic, as far as this node wrote it or saw it written: which tables of the
-- stream it has, and the keys of its parts. One row.
CREATE TABLE IF NOT EXISTS understudy.schema_record (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  epoch integer NOT NULL,
  relations text[] NOT NULL,
  parts jsonb NOT NULL
);

-- A token for what was committed before the call: give it to wait_for on a follower. The calling
-- transaction itself is not covered before it has committed.
CREATE OR REPLACE FUNCTION understudy.token() RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  node understudy.node;
  -- Insert, not flush: a commit of synchronous_commit=off may not be flushed yet.
  lsn pg_lsn := pg_current_wal_insert_lsn();
  page_size numeric := current_setting('wal_block_size')::numeric;
  segment_size numeric := (SELECT s.setting FROM pg_settings s WHERE s.name = 'wal_segment_size');
  header_size CONSTANT numeric := 24;
  segment_header_size CONSTANT numeric := 40;
BEGIN
  SELECT * INTO node FROM understudy.node;
  IF node.role IS DISTINCT FROM 'leader' THEN
    RAISE EXCEPTION 'this node does not lead %', coalesce(node.cluster, 'a cluster')
      USING ERRCODE = 'object_not_in_prerequisite_state',
        HINT = 'Call it on the leader: connect with target_session_attrs=read-write.';
  END IF;
  -- When the last record fills its page, this is past the header of the next page, where nothing
  -- ends: on a server without further writes, no follower would ever reach it.
  IF (lsn - '0/0') % segment_size = segment_header_size THEN
    lsn := lsn - segment_header_size;
  ELSIF (lsn - '0/0') % page_size = header_size THEN
    lsn := lsn - header_size;
  END IF;
  RETURN node.epoch || ':' || lsn;
END
$$;

-- Whether this node holds what commits below token_lsn in token_epoch. Walks back from the epoch
-- of the node's position; `bound` is the LSN up to which it holds, `ended` whether that is final.
CREATE OR REPLACE FUNCTION understudy.covers(token_epoch integer, token_lsn pg_lsn) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  node understudy.node;
  walked integer;
  bound pg_lsn;
  ended boolean := false;
  later understudy.epochs;
  base understudy.epochs;
BEGIN
  SELECT * INTO node FROM understudy.node;
  IF EXISTS (SELECT FROM understudy.bootstrap) THEN
    RAISE EXCEPTION 'this node is being built from the log'
      USING ERRCODE = 'UN002', HINT = 'Its rows are not those of any LSN yet; read from the leader '
        'until understudy status shows this node exact.';
  END IF;
  IF node.role = 'leader' THEN
    walked := node.epoch;
    bound := pg_current_wal_insert_lsn();
  ELSE
    SELECT p.epoch, p.upto INTO walked, bound FROM understudy.position p;
  END IF;
  IF walked IS NULL OR token_epoch > walked THEN
    RETURN false;
  END IF;
  WHILE token_epoch < walked LOOP
    SELECT * INTO later FROM understudy.epochs e WHERE e.epoch = walked;
    IF NOT FOUND THEN
      RETURN false;
    END IF;
    IF later.base_epoch IS NULL OR later.base_epoch < token_epoch THEN
      RAISE EXCEPTION 'lost: nothing of epoch % was kept', token_epoch
        USING ERRCODE = 'UN001', HINT = 'The write is not in the stream: repeat it.';
    END IF;
    SELECT * INTO base FROM understudy.epochs e WHERE e.epoch = later.base_epoch;
    -- Where the same server continued, its LSNs continue too and nothing was discarded.
    IF (base.leader, base.system_id, base.timeline)
        IS DISTINCT FROM (later.leader, later.system_id, later.timeline) THEN
      bound := later.base_upto;
      ended := true;
    -- Unless it has a new slot and resnapshots all tables: writes in between arrive by that, or
    -- never.
    ELSIF ended AND later.start_lsn > later.base_upto THEN
      bound := least(bound, later.base_upto);
    END IF;
    walked := later.base_epoch;
  END LOOP;
  IF ended AND token_lsn > bound THEN
    RAISE EXCEPTION 'lost: epoch % ended at %, before %', token_epoch, bound, token_lsn
      USING ERRCODE = 'UN001', HINT = 'The write may be missing: check, and repeat it.';
  END IF;
  IF token_lsn > bound THEN
    RETURN false;
  END IF;
  IF node.role = 'follower' AND EXISTS (
      SELECT FROM understudy.position p WHERE cardinality(p.unfinished) > 0) THEN
    RAISE EXCEPTION 'tables of this node are backfilling'
      USING ERRCODE = 'UN002', HINT = 'Read from the leader until understudy status shows this '
        'node exact, or read without a token.';
  END IF;
  RETURN true;
END
$$;

-- Waits until the token's writes are visible to the next statement: true then, false at the
-- timeout, an error where they never can be.
CREATE OR REPLACE FUNCTION understudy.wait_for(token text, timeout interval) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  -- Short enough to add little to a read, long enough not to burden the server while it waits.
  sleep_s_max CONSTANT double precision := 0.02;
  sleep_s double precision := 0.001;
  deadline timestamptz := clock_timestamp() + timeout;
  rest_s double precision;
  parts text[] := regexp_match(token, '^([1-9][0-9]{0,8}):([0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8})$');
BEGIN
  IF parts IS NULL THEN
    RAISE EXCEPTION 'not a token: %', coalesce(quote_literal(token), 'NULL')
      USING ERRCODE = 'invalid_parameter_value',
        HINT = 'Pass what understudy.token() returned on the leader, for example 3:0/16B3748.';
  END IF;
  IF deadline IS NULL THEN
    RAISE EXCEPTION 'the timeout is null'
      USING ERRCODE = 'null_value_not_allowed', HINT = 'Pass an interval, for example ''2s''.';
  END IF;
  IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
    RAISE EXCEPTION 'wait_for works in READ COMMITTED transactions only'
      USING ERRCODE = 'invalid_transaction_state',
        HINT = 'A snapshot is already taken here. Wait first, then begin the transaction.';
  END IF;
  IF NOT EXISTS (SELECT FROM understudy.node) THEN
    RAISE EXCEPTION 'this database is not a node of a cluster'
      USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Run: understudy init';
  END IF;
  LOOP
    IF understudy.covers(parts[1]::integer, parts[2]::pg_lsn) THEN
      RETURN true;
    END IF;
    rest_s := extract(epoch FROM deadline - clock_timestamp());
    IF rest_s <= 0 THEN
      RETURN false;
    END IF;
    PERFORM pg_sleep(least(sleep_s, rest_s));
    sleep_s := least(sleep_s * 2, sleep_s_max);
  END LOOP;
END
$$;

-- Creates a named consistency point directly after the calling transaction. A rollback leaves none.
CREATE OR REPLACE FUNCTION understudy.point(label text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  node understudy.node;
BEGIN
  SELECT * INTO node FROM understudy.node;
  IF node.role IS DISTINCT FROM 'leader' THEN
    RAISE EXCEPTION 'this node does not lead %', coalesce(node.cluster, 'a cluster')
      USING ERRCODE = 'object_not_in_prerequisite_state',
        HINT = 'Points are created on the leader: connect with target_session_attrs=read-write.';
  END IF;
  IF (label ~ '^[a-z][a-z0-9_.-]{0,62}$') IS NOT TRUE THEN
    RAISE EXCEPTION 'not a label: %', coalesce(quote_literal(label), 'NULL')
      USING ERRCODE = 'invalid_parameter_value',
        HINT = 'A label is [a-z][a-z0-9_.-]{0,62}, for example before-migration-7.';
  END IF;
  -- A point is at the end of its transaction, and has one name.
  IF current_setting('understudy.point_label', true) <> '' THEN
    RAISE EXCEPTION 'this transaction creates the point % already',
        current_setting('understudy.point_label')
      USING ERRCODE = 'object_not_in_prerequisite_state',
        HINT = 'Create the second point in a transaction of its own.';
  END IF;
  -- Each point ends a batch, and every agent keeps its label. Those that a leader sent have an LSN.
  IF (SELECT count(*) FROM understudy.points p
      WHERE p.upto IS NULL AND p.created_at > clock_timestamp() - interval '1 minute') >= 100 THEN
    RAISE EXCEPTION '100 points were created within a minute'
      USING ERRCODE = 'program_limit_exceeded', HINT = 'Create the point a minute later.';
  END IF;
  INSERT INTO understudy.points (label) VALUES (point.label) ON CONFLICT DO NOTHING;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the point % exists already', label
      USING ERRCODE = 'unique_violation', HINT = 'Labels are used once: choose another.';
  END IF;
  PERFORM set_config('understudy.point_label', label, true);
  -- Any user may write such a message, but only this function knows the stream's id.
  PERFORM pg_logical_emit_message(true, 'understudy.point', node.stream_id || ' ' || label);
END
$$;

-- The write guard of a follower. It refuses without reading a flag: a session with an old snapshot
-- would not see that change, but it sees that a trigger was enabled. The applier passes
-- because its role is replica, under which ordinary triggers do not fire.
CREATE OR REPLACE FUNCTION understudy.refuse_write() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RAISE EXCEPTION 'cannot % %.%: this node follows %', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME,
      coalesce((SELECT n.cluster FROM understudy.node n), 'another')
    USING ERRCODE = 'read_only_sql_transaction',
      HINT = 'Write to the leader: name all hosts, with target_session_attrs=read-write.';
END
$$;

CREATE OR REPLACE FUNCTION understudy.refuse_ddl() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RAISE EXCEPTION 'cannot %: this node follows %', TG_TAG,
      coalesce((SELECT n.cluster FROM understudy.node n), 'another')
    USING ERRCODE = 'read_only_sql_transaction',
      HINT = 'Change the schema on the leader: connect with target_session_attrs=read-write.';
END
$$;

-- An open transaction may run DDL before its session has read the catalog entry of a new event
-- trigger: at the start of a command nothing makes it process invalidations. At the end of the
-- command it has processed them, but event triggers are read there only if the session knew of one
-- when the command began. This one, which always exists, is that one: by it the guard's triggers
-- can refuse at the end.
CREATE OR REPLACE FUNCTION understudy.watch_ddl() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  touched oid[];
BEGIN
  IF TG_TAG = 'ALTER TYPE' THEN
    PERFORM understudy.note_altered_types();
  ELSIF TG_TAG = 'ALTER TABLE' THEN
    touched := understudy.touched_tables();
    -- The rows of a table may be values of another's column.
    PERFORM understudy.note_altered_types(touched);
    PERFORM understudy.note_altered_keys(touched);
    PERFORM understudy.note_unpublished(touched);
  ELSIF TG_TAG IN ('ALTER PUBLICATION', 'DROP PUBLICATION') THEN
    PERFORM understudy.note_unpublished();
  END IF;
  -- Sessions of the agent have the replica role, under which this does not run.
  IF TG_TAG ~ '^(ALTER|DROP) '
      AND EXISTS (SELECT FROM understudy.node n WHERE n.role = 'leader') THEN
    PERFORM understudy.report_changes(touched);
  END IF;
END
$$;

-- The tables whose shape the ALTER TABLE that just ran may have changed; NULL where that may be
-- any. A migration alters a thousand tables, and each command is compared with those alone.
CREATE OR REPLACE FUNCTION understudy.touched_tables() RETURNS oid[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  touched oid[];
BEGIN
  -- With all that inherits from them: a column is added there too. A partition that was detached is
  -- known by what it was a partition of.
  WITH RECURSIVE below (oid) AS (
    SELECT coalesce(x.indrelid, d.objid)
    FROM pg_event_trigger_ddl_commands() d
    LEFT JOIN pg_index x ON x.indexrelid = d.objid
    WHERE d.classid = 'pg_class'::regclass
    UNION
    SELECT c.oid
    FROM below b
    CROSS JOIN LATERAL (
      SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = b.oid
      UNION ALL SELECT p.table_oid FROM understudy.partition_parents p WHERE p.parent_oid = b.oid
    ) AS c (oid)
  )
  SELECT coalesce(array_agg(b.oid), '{}') INTO touched FROM below b;
  -- Its name is the name of a type: columns of other tables may have it, or a domain over it.
  IF EXISTS (
      SELECT FROM pg_class c
      JOIN pg_type t ON t.oid = c.reltype
      JOIN pg_depend d ON d.refclassid = 'pg_type'::regclass
        AND d.refobjid = ANY (ARRAY[t.oid, t.typarray]) AND d.deptype = 'n'
      WHERE c.oid = ANY (touched)) THEN
    RETURN NULL;
  END IF;
  RETURN touched;
END
$$;

-- Tables that are not what the stream says of them, each difference as a clause. `at_once`: no row
-- of the table has to be written for the stream to be wrong. Of the given tables only, where some
-- are given.
CREATE OR REPLACE FUNCTION understudy.altered_tables(only_of oid[] DEFAULT NULL)
RETURNS TABLE (relation_id text, table_name text, what text, at_once boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
  WITH known AS (
    SELECT r.relation_id, r.schema_name || '.' || r.table_name AS table_name, r.identity, c.oid,
      c.relreplident, c.relpersistence, n.nspname || '.' || c.relname AS name_now
    FROM understudy.relations r
    LEFT JOIN pg_class c ON c.oid = r.table_oid
    LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE NOT r.dropped AND r.table_oid IS NOT NULL
      AND (only_of IS NULL OR r.table_oid = ANY (only_of))
  )
  SELECT t.relation_id, t.table_name, 'it was dropped', true FROM known t WHERE t.oid IS NULL
  UNION ALL
  SELECT t.relation_id, t.table_name, 'it was renamed to ' || t.name_now, true
  FROM known t WHERE t.name_now <> t.table_name
  UNION ALL
  SELECT t.relation_id, t.table_name, 'it was made unlogged', true
  FROM known t WHERE t.relpersistence <> 'p'
  UNION ALL
  SELECT t.relation_id, t.table_name,
    CASE
      WHEN a.attnum IS NULL THEN format('its column %s was dropped', k.name)
      WHEN a.attname <> k.name THEN format('its column %s was renamed to %s', k.name, a.attname)
      WHEN a.attgenerated <> '' THEN format('its column %s was made a generated one', k.name)
      ELSE format('its column %s is %s instead of %s', k.name,
        format_type(a.atttypid, a.atttypmod), k.type)
    END,
    false
  FROM known t
  JOIN understudy.columns k ON k.relation_id = t.relation_id AND k.ordinal IS NOT NULL
    AND k.attnum IS NOT NULL
  LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.attnum AND NOT a.attisdropped
  WHERE t.oid IS NOT NULL AND (a.attnum IS NULL OR a.attname <> k.name OR a.attgenerated <> ''
    OR format_type(a.atttypid, a.atttypmod) <> k.type)
  UNION ALL
  SELECT t.relation_id, t.table_name, format('its column %s was added', a.attname), false
  FROM known t
  JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
    AND a.attgenerated = ''
  WHERE NOT EXISTS (
    SELECT FROM understudy.columns k
    WHERE k.relation_id = t.relation_id AND k.ordinal IS NOT NULL AND k.attnum = a.attnum)
  UNION ALL
  SELECT t.relation_id, t.table_name, 'it has another identity', false
  FROM known t
  LEFT JOIN pg_index x ON x.indrelid = t.oid AND x.indisvalid AND x.indimmediate
    AND x.indisunique AND x.indpred IS NULL
    AND CASE t.relreplident WHEN 'i' THEN x.indisreplident WHEN 'n' THEN false
      ELSE x.indisprimary END
  WHERE t.oid IS NOT NULL AND ARRAY(
      SELECT i.attnum::int
      FROM unnest((x.indkey::int2[])[0:x.indnkeyatts - 1]) AS i (attnum) ORDER BY 1)
    <> ARRAY(
      SELECT k.attnum::int FROM understudy.columns k
      WHERE k.relation_id = t.relation_id AND k.column_id = ANY (t.identity) ORDER BY 1)
  UNION ALL
  SELECT t.relation_id, t.table_name,
    CASE WHEN i.inhparent IS NULL THEN 'it was detached: it is no partition any more'
      ELSE 'it was attached as a partition of ' || i.inhparent::regclass END,
    true
  FROM known t
  JOIN understudy.partition_parents p ON p.table_oid = t.oid
  JOIN pg_class c ON c.oid = t.oid
  LEFT JOIN pg_inherits i ON i.inhrelid = t.oid AND c.relispartition
  WHERE p.parent_oid <> coalesce(i.inhparent, 0)
$$;

-- All that the stream cannot carry: tables of another shape, and changes without a row message.
CREATE OR REPLACE FUNCTION understudy.open_changes(only_of oid[] DEFAULT NULL)
RETURNS TABLE (table_name text, what text, at_once boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT a.table_name, a.what, a.at_once FROM understudy.altered_tables(only_of) a
  UNION
  SELECT coalesce(n.nspname || '.' || c.relname, 'a dropped table'), u.what, true
  FROM understudy.unseen_changes u
  LEFT JOIN pg_class c ON c.oid = u.table_oid
  LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
$$;

-- Warns the client that makes such a change, or refuses it. One that was undone is forgotten.
CREATE OR REPLACE FUNCTION understudy.report_changes(only_of oid[] DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  change record;
  open_now jsonb;
  -- A dropped publication concerns every table.
  warnings_max CONSTANT integer := 5;
  found integer := 0;
  recipe CONSTANT text := 'make the same change on every follower (in a session with '
    'session_replication_role=replica and default_transaction_read_only=off), then run '
    '"understudy resnapshot --all --new-slot" while no agent leads, and start the agent again';
BEGIN
  SELECT coalesce(jsonb_agg(o), '[]') INTO open_now
  FROM understudy.open_changes(only_of) AS o;
  DELETE FROM understudy.schema_changes s
  WHERE (only_of IS NULL OR s.table_name IN (
      SELECT r.schema_name || '.' || r.table_name FROM understudy.relations r
      WHERE r.table_oid = ANY (only_of)))
    AND NOT EXISTS (
      SELECT FROM jsonb_to_recordset(open_now) AS o (table_name text, what text)
      WHERE o.table_name = s.table_name AND o.what = s.what);
  FOR change IN
    INSERT INTO understudy.schema_changes (table_name, what)
    SELECT o.table_name, o.what
    FROM jsonb_to_recordset(open_now) AS o (table_name text, what text)
    ON CONFLICT DO NOTHING
    RETURNING schema_changes.table_name AS name, schema_changes.what AS what
  LOOP
    IF current_setting('understudy.ddl', true) IS DISTINCT FROM 'allow'
        AND EXISTS (SELECT FROM understudy.ddl_policy p WHERE p.refuse) THEN
      RAISE EXCEPTION 'understudy replicates % and no schema changes: %', change.name, change.what
        USING ERRCODE = 'object_not_in_prerequisite_state',
          HINT = 'understudy.yaml says ddl: refuse. To make the change all the same: SET '
            'understudy.ddl = ''allow''; make it; ' || recipe || '.';
    END IF;
    found := found + 1;
    CONTINUE WHEN found > warnings_max;
    RAISE WARNING 'understudy replicates % and no schema changes: %', change.name, change.what
      USING DETAIL = 'Followers do not get this change. The stream of the leader stops at the next '
        'row of the table, or before it.',
        HINT = 'Undo it before a row is written, or ' || recipe || '.';
  END LOOP;
  IF found > warnings_max THEN
    RAISE WARNING 'understudy: % more such changes', found - warnings_max
      USING HINT = 'All of them: understudy status';
  END IF;
END
$$;

-- The types that values of the stream's tables are made of, arrays, domains, ranges and composites
-- taken apart. Of the given tables only, where some are given.
CREATE OR REPLACE FUNCTION understudy.types_of_tables(only_of oid[] DEFAULT NULL)
RETURNS TABLE (table_oid oid, type_oid oid)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
  WITH RECURSIVE used (table_oid, type_oid) AS (
    SELECT a.attrelid, a.atttypid
    FROM understudy.relations r
    JOIN pg_attribute a ON a.attrelid = r.table_oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE only_of IS NULL OR r.table_oid = ANY (only_of)
    UNION
    SELECT u.table_oid, part.type_oid
    FROM used u
    JOIN pg_type t ON t.oid = u.type_oid
    CROSS JOIN LATERAL (
      SELECT t.typelem
      UNION ALL SELECT t.typbasetype
      UNION ALL SELECT g.rngsubtype FROM pg_range g WHERE t.oid IN (g.rngtypid, g.rngmultitypid)
      UNION ALL SELECT a.atttypid FROM pg_attribute a
        WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
    ) AS part (type_oid)
    WHERE part.type_oid <> 0
  )
  SELECT u.table_oid, u.type_oid FROM used u JOIN pg_type t ON t.oid = u.type_oid
  WHERE t.typtype IN ('e', 'c')
$$;

CREATE OR REPLACE FUNCTION understudy.texts_of_type(type_oid oid) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT CASE t.typtype
    WHEN 'e' THEN (
      SELECT jsonb_object_agg(e.oid, e.enumlabel) FROM pg_enum e WHERE e.enumtypid = t.oid)
    ELSE (
      SELECT jsonb_object_agg(a.attnum, a.atttypid::bigint) FROM pg_attribute a
      WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)
    END
  FROM pg_type t WHERE t.oid = texts_of_type.type_oid
$$;

-- The index that is the identity: its columns, and its operator classes with those collations under
-- which different texts may be equal.
CREATE OR REPLACE FUNCTION understudy.keys_of_tables(only_of oid[] DEFAULT NULL)
RETURNS TABLE (table_oid oid, columns text, equality text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
  WITH loose AS MATERIALIZED (
    SELECT l.oid FROM pg_collation l WHERE NOT l.collisdeterministic
  )
  SELECT c.oid, x.indkey::text, concat_ws(' ', x.indclass::text, n.collations)
  FROM understudy.relations r
  JOIN pg_class c ON c.oid = r.table_oid
  JOIN pg_index x ON x.indrelid = c.oid AND x.indisvalid
    AND CASE c.relreplident WHEN 'i' THEN x.indisreplident ELSE x.indisprimary END
  CROSS JOIN LATERAL (
    SELECT string_agg(k.at || ':' || l.oid, ' ' ORDER BY k.at) AS collations
    FROM unnest(x.indcollation::oid[]) WITH ORDINALITY AS k (oid, at)
    JOIN loose l ON l.oid = k.oid) AS n
  WHERE only_of IS NULL OR r.table_oid = ANY (only_of)
$$;

CREATE OR REPLACE FUNCTION understudy.remember_types(tables oid[]) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
  INSERT INTO understudy.key_equalities (table_oid, columns, equality)
  SELECT k.table_oid, k.columns, k.equality FROM understudy.keys_of_tables(tables) k
  ON CONFLICT DO NOTHING;
  INSERT INTO understudy.type_texts (type_oid, texts)
  SELECT DISTINCT u.type_oid, coalesce(understudy.texts_of_type(u.type_oid), '{}')
  FROM understudy.types_of_tables(tables) u
  ON CONFLICT DO NOTHING;
  INSERT INTO understudy.partition_parents (table_oid, parent_oid)
  SELECT c.oid, coalesce(i.inhparent, 0)
  FROM understudy.relations r
  JOIN pg_class c ON c.oid = r.table_oid AND c.oid = ANY (tables)
  LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND c.relispartition
  ON CONFLICT DO NOTHING
$$;

-- A follower that is promoted: what was attached here while it followed is no change on a leader.
CREATE OR REPLACE FUNCTION understudy.begin_to_lead() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
  DELETE FROM understudy.partition_parents
  WHERE EXISTS (SELECT FROM understudy.node n WHERE n.role = 'follower');
  SELECT understudy.remember_types(ARRAY(
    SELECT r.table_oid FROM understudy.relations r WHERE r.table_oid IS NOT NULL))
$$;

-- Before the table enters the stream in another shape: what was kept of the former one.
CREATE OR REPLACE FUNCTION understudy.forget_shape(of_table oid) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
  DELETE FROM understudy.key_equalities k WHERE k.table_oid = of_table;
  DELETE FROM understudy.partition_parents p WHERE p.table_oid = of_table
$$;

-- A new label changes no stored value; a new attribute and a renamed label do.
CREATE OR REPLACE FUNCTION understudy.note_altered_types(only_of oid[] DEFAULT NULL) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
  INSERT INTO understudy.unseen_changes (table_oid, what)
  SELECT u.table_oid,
    'ALTER ' || CASE WHEN c.relkind <> 'c' THEN 'TABLE' ELSE 'TYPE' END || ' changed how values of '
      || format_type(u.type_oid, NULL) || ' look'
  FROM understudy.types_of_tables(only_of) u
  JOIN understudy.type_texts k ON k.type_oid = u.type_oid
  JOIN pg_type t ON t.oid = u.type_oid
  LEFT JOIN pg_class c ON c.oid = t.typrelid
  CROSS JOIN LATERAL (SELECT coalesce(understudy.texts_of_type(u.type_oid), '{}')) AS now (texts)
  WHERE NOT (now.texts @> k.texts AND (t.typtype = 'e' OR k.texts @> now.texts))
  ON CONFLICT DO NOTHING
$$;

-- Under another collation there may be two rows here that are one row on a follower.
CREATE OR REPLACE FUNCTION understudy.note_altered_keys(only_of oid[] DEFAULT NULL) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
  INSERT INTO understudy.unseen_changes (table_oid, what)
  SELECT n.table_oid, 'its identity takes other values for equal'
  FROM understudy.keys_of_tables(only_of) n
  JOIN understudy.key_equalities k ON k.table_oid = n.table_oid AND k.columns = n.columns
  WHERE k.equality <> n.equality
  ON CONFLICT DO NOTHING
$$;

-- A table that becomes a partition brings its rows along, and no message reports them. It may be a
-- tree of partitions itself, and be attached to one that was created after init. Outside of an event
-- trigger it is an error, so any role may call it.
CREATE OR REPLACE FUNCTION understudy.attached_tables()
RETURNS TABLE (table_oid oid, schema_name text, table_name text)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  SELECT c.oid, n.nspname, c.relname
  FROM pg_event_trigger_ddl_commands() d
  CROSS JOIN LATERAL pg_partition_tree(d.objid::regclass) t
  JOIN pg_class c ON c.oid = t.relid AND c.oid <> d.objid AND c.relkind = 'r'
  JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE d.classid = 'pg_class'::regclass
    AND EXISTS (
      SELECT FROM pg_partition_ancestors(d.objid::regclass) a
      JOIN understudy.relations r ON r.table_oid = a.relid)
    AND NOT EXISTS (SELECT FROM understudy.relations k WHERE k.table_oid = c.oid)
$$;

CREATE OR REPLACE FUNCTION understudy.note_attached_rows(attached oid) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  INSERT INTO understudy.unseen_changes (table_oid, what)
  SELECT a.table_oid, 'it was attached as a partition with rows in it'
  FROM understudy.attached_tables() a WHERE a.table_oid = attached
  ON CONFLICT DO NOTHING
$$;

-- As the role that attaches the table: to plan a query Postgres evaluates expressions of its
-- indexes, which are its owner's. A table that the role may not read counts as one with rows. Its
-- name is before that of understudy_watch, which reports what was noted.
CREATE OR REPLACE FUNCTION understudy.watch_attached() RETURNS event_trigger
LANGUAGE plpgsql SECURITY INVOKER SET search_path = pg_catalog, pg_temp SET row_security = off
AS $$
DECLARE
  child record;
  holds_rows boolean;
BEGIN
  FOR child IN SELECT * FROM understudy.attached_tables() LOOP
    BEGIN
      EXECUTE format('SELECT EXISTS (SELECT FROM ONLY %I.%I)', child.schema_name, child.table_name)
        INTO holds_rows;
    EXCEPTION WHEN insufficient_privilege THEN
      holds_rows := true;
    END;
    IF holds_rows THEN
      PERFORM understudy.note_attached_rows(child.table_oid);
    END IF;
  END LOOP;
END
$$;

-- A partition is published with its root. A table that is detached, filled and re-attached, or
-- dropped from the publication and re-added, is as before: what was written in between is not sent.
CREATE OR REPLACE FUNCTION understudy.note_unpublished(only_of oid[] DEFAULT NULL) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
  WITH published AS (
    SELECT p.prrelid AS table_oid
    FROM understudy.node n
    JOIN pg_publication b ON b.pubname = 'understudy_' || n.cluster
    JOIN pg_publication_rel p ON p.prpubid = b.oid
    WHERE b.pubinsert AND b.pubupdate AND b.pubdelete AND b.pubtruncate AND NOT b.pubviaroot
      AND p.prqual IS NULL AND p.prattrs IS NULL
  )
  INSERT INTO understudy.unseen_changes (table_oid, what)
  SELECT c.oid, 'it left the publication, alone or with what it is a partition of'
  FROM understudy.relations r
  JOIN pg_class c ON c.oid = r.table_oid
  WHERE (only_of IS NULL OR c.oid = ANY (only_of))
    AND c.oid NOT IN (SELECT p.table_oid FROM published p)
    AND NOT EXISTS (
      SELECT FROM pg_partition_ancestors(c.oid) a JOIN published p ON p.table_oid = a.relid)
  ON CONFLICT DO NOTHING
$$;

-- Requests a resnapshot of these relations by the leader's agent, from this transaction's LSN on.
-- It makes up for changes without a row message, so nothing is left to refuse; but for a table that
-- is still out of the publication, and for an identity under which other values are equal, which
-- may be different on followers. A partition that was created meanwhile is read when it enters.
CREATE OR REPLACE FUNCTION understudy.read_anew(relation_ids text[]) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
  SELECT pg_logical_emit_message(true, 'understudy.reread', n.stream_id || ' ' || id)
  FROM understudy.node n, unnest(relation_ids) AS id;
  INSERT INTO understudy.unread_partitions (table_oid)
  SELECT DISTINCT t.relid
  FROM understudy.relations r
  CROSS JOIN LATERAL pg_partition_tree(pg_partition_root(r.table_oid)) t
  JOIN pg_class c ON c.oid = t.relid AND c.relkind = 'r'
  WHERE r.relation_id = ANY (relation_ids)
    AND NOT EXISTS (SELECT FROM understudy.relations k WHERE k.table_oid = t.relid)
  ON CONFLICT DO NOTHING;
  WITH read (table_oid) AS (
    SELECT r.table_oid FROM understudy.relations r WHERE r.relation_id = ANY (relation_ids)
    UNION
    SELECT a.relid FROM understudy.relations r
    CROSS JOIN LATERAL pg_partition_ancestors(r.table_oid) a
    WHERE r.relation_id = ANY (relation_ids)
    UNION
    SELECT p.table_oid FROM understudy.unread_partitions p
  ), told AS (
    DELETE FROM understudy.unseen_changes u USING read r
    WHERE u.table_oid = r.table_oid AND u.what <> 'its identity takes other values for equal'
  )
  UPDATE understudy.type_texts k SET texts = coalesce(understudy.texts_of_type(k.type_oid), '{}')
  FROM understudy.types_of_tables() u, read r
  WHERE u.table_oid = r.table_oid AND k.type_oid = u.type_oid;
  -- A new node is built with the types and tables of now.
  UPDATE understudy.schema_record SET epoch = 0;
  -- A new attribute may be of a type that no table had before.
  SELECT understudy.remember_types(ARRAY(
    SELECT r.table_oid FROM understudy.relations r WHERE r.relation_id = ANY (relation_ids)));
  SELECT understudy.note_unpublished();
  DELETE FROM understudy.schema_changes s
  WHERE NOT EXISTS (
    SELECT FROM understudy.open_changes() o
    WHERE o.table_name = s.table_name AND o.what = s.what);
$$;

CREATE OR REPLACE FUNCTION understudy.watch_rewrite() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  INSERT INTO understudy.unseen_changes (table_oid, what)
  SELECT r.table_oid, 'ALTER TABLE rewrote its rows'
  FROM understudy.relations r WHERE r.table_oid = pg_event_trigger_table_rewrite_oid()
  ON CONFLICT DO NOTHING;
END
$$;

DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'understudy_watch_rewrite') THEN
    CREATE EVENT TRIGGER understudy_watch_rewrite ON table_rewrite
      EXECUTE FUNCTION understudy.watch_rewrite();
  END IF;
END
$$;

DROP FUNCTION IF EXISTS understudy.note_attached_rows();
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'understudy_attached') THEN
    CREATE EVENT TRIGGER understudy_attached ON ddl_command_end WHEN TAG IN ('ALTER TABLE')
      EXECUTE FUNCTION understudy.watch_attached();
  END IF;
END
$$;

DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'understudy_watch') THEN
    CREATE EVENT TRIGGER understudy_watch ON ddl_command_end
      EXECUTE FUNCTION understudy.watch_ddl();
    UPDATE understudy.node SET watched_since = NULL;
  END IF;
END
$$;

-- Default privileges of the database may have given more than this.
REVOKE ALL ON SCHEMA understudy FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA understudy FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA understudy FROM PUBLIC;
GRANT USAGE ON SCHEMA understudy TO PUBLIC;
GRANT EXECUTE ON FUNCTION understudy.token(), understudy.wait_for(text, interval),
  understudy.point(text), understudy.attached_tables(), understudy.note_attached_rows(oid)
  TO PUBLIC;
