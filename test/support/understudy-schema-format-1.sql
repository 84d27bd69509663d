-- The `understudy` schema of one node's database: what the node is, where it stands in the stream,
-- and the functions that its users call. Running it again changes nothing and repairs functions.
-- Every function pins its search_path, so that nothing a caller has made can stand in for ours.

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
  -- Transactions that began later know the event trigger understudy_watch.
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
  format integer NOT NULL
);

-- The reigns that count, from the first to the one this node stands in.
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

-- Tables of the stream. Rows are never deleted: a relation id is never given again.
CREATE TABLE IF NOT EXISTS understudy.relations (
  relation_id text PRIMARY KEY,
  table_oid oid UNIQUE,
  schema_name text NOT NULL,
  table_name text NOT NULL,
  -- Column ids, in the order of the identity's index.
  identity text[] NOT NULL,
  dropped boolean NOT NULL
);

-- Their columns. Rows are never deleted; attnum and ordinal are null once the column is gone.
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

-- Labels that were given on this node as leader; the position is filled in once it is published.
CREATE TABLE IF NOT EXISTS understudy.points (
  label text PRIMARY KEY CHECK (label ~ '^[a-z][a-z0-9_.-]{0,62}$'),
  epoch integer,
  upto pg_lsn,
  commit_time_us bigint
);

-- What the text of stored values is made of: the labels of an enum, the attributes of a composite
-- type, as they were when a table with such a column entered the stream.
CREATE TABLE IF NOT EXISTS understudy.type_texts (
  type_oid oid PRIMARY KEY,
  texts jsonb NOT NULL
);

-- Tables whose rows changed without a row message: rewritten by ALTER TABLE, attached with rows as a
-- partition, or of a type whose values look otherwise now. The leader's agent stops at the first
-- entry.
CREATE TABLE IF NOT EXISTS understudy.unseen_changes (
  table_oid oid NOT NULL,
  what text NOT NULL,
  PRIMARY KEY (table_oid, what)
);

-- ENABLE ALWAYS and REPLICA triggers that are switched off while this node follows.
CREATE TABLE IF NOT EXISTS understudy.held_triggers (
  schema_name text NOT NULL,
  table_name text NOT NULL,
  trigger_name text NOT NULL,
  mode "char" NOT NULL CHECK (mode IN ('A', 'R')),
  PRIMARY KEY (schema_name, table_name, trigger_name)
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
        HINT = 'Ask the leader: connect with target_session_attrs=read-write.';
  END IF;
  -- When the last record fills its page, this is past the header of the next page, where nothing
  -- ends: on a server that goes quiet then, no follower would ever get there.
  IF (lsn - '0/0') % segment_size = segment_header_size THEN
    lsn := lsn - segment_header_size;
  ELSIF (lsn - '0/0') % page_size = header_size THEN
    lsn := lsn - header_size;
  END IF;
  RETURN node.epoch || ':' || lsn;
END
$$;

-- Whether this node holds what commits below token_lsn in token_epoch. Walks back from the epoch
-- the node stands in; `bound` is the LSN that is held, `ended` whether more can still come.
CREATE OR REPLACE FUNCTION understudy.covers(token_epoch integer, token_lsn pg_lsn) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  node understudy.node;
  walked integer;
  bound pg_lsn;
  ended boolean := false;
  reign understudy.epochs;
  base understudy.epochs;
BEGIN
  SELECT * INTO node FROM understudy.node;
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
    SELECT * INTO reign FROM understudy.epochs e WHERE e.epoch = walked;
    IF NOT FOUND THEN
      RETURN false;
    END IF;
    IF reign.base_epoch IS NULL OR reign.base_epoch < token_epoch THEN
      RAISE EXCEPTION 'lost: nothing of epoch % was kept', token_epoch
        USING ERRCODE = 'UN001', HINT = 'The write is not in the stream: make it again.';
    END IF;
    SELECT * INTO base FROM understudy.epochs e WHERE e.epoch = reign.base_epoch;
    -- Where the same server went on, its LSNs go on too and nothing was discarded.
    IF (base.leader, base.system_id, base.timeline)
        IS DISTINCT FROM (reign.leader, reign.system_id, reign.timeline) THEN
      bound := reign.base_upto;
      ended := true;
    END IF;
    walked := reign.base_epoch;
  END LOOP;
  IF ended AND token_lsn > bound THEN
    RAISE EXCEPTION 'lost: epoch % ended at %, before %', token_epoch, bound, token_lsn
      USING ERRCODE = 'UN001', HINT = 'The write may be missing: look, and make it again.';
  END IF;
  RETURN token_lsn <= bound;
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
    RAISE EXCEPTION 'this database is no node of a cluster'
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

-- Makes a named consistency point directly after the calling transaction. A rollback leaves none.
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
        HINT = 'Points are made on the leader: connect with target_session_attrs=read-write.';
  END IF;
  IF (label ~ '^[a-z][a-z0-9_.-]{0,62}$') IS NOT TRUE THEN
    RAISE EXCEPTION 'not a label: %', coalesce(quote_literal(label), 'NULL')
      USING ERRCODE = 'invalid_parameter_value',
        HINT = 'A label is [a-z][a-z0-9_.-]{0,62}, for example before-migration-7.';
  END IF;
  -- A point stands at the end of its transaction, and has one name.
  IF current_setting('understudy.point_label', true) <> '' THEN
    RAISE EXCEPTION 'this transaction makes the point % already',
        current_setting('understudy.point_label')
      USING ERRCODE = 'object_not_in_prerequisite_state',
        HINT = 'Make the second point in a transaction of its own.';
  END IF;
  INSERT INTO understudy.points (label) VALUES (point.label) ON CONFLICT DO NOTHING;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the point % exists already', label
      USING ERRCODE = 'unique_violation', HINT = 'Labels are used once: choose another.';
  END IF;
  PERFORM set_config('understudy.point_label', label, true);
  PERFORM pg_logical_emit_message(true, 'understudy.point', label);
END
$$;

-- The write guard of a follower. It refuses without looking at a flag: a session with an old
-- snapshot would not see that change, but it sees that a trigger was enabled. The applier passes
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

-- An open transaction may run DDL before its session has heard of a new event trigger: at the start
-- of a command nothing makes it listen. At the end of the command it has listened, but event
-- triggers are looked up there only if the session knew of one when the command began. This one,
-- which is always there and does nothing, is that one: by it the guard's can refuse at the end.
CREATE OR REPLACE FUNCTION understudy.watch_ddl() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF TG_TAG = 'ALTER TYPE' THEN
    PERFORM understudy.note_altered_types();
  ELSIF TG_TAG = 'ALTER TABLE' THEN
    PERFORM understudy.note_attached_rows();
  END IF;
END
$$;

-- The types that values of the stream's tables are made of, arrays, domains, ranges and composites
-- taken apart.
CREATE OR REPLACE FUNCTION understudy.types_of_tables() RETURNS TABLE (table_oid oid, type_oid oid)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
  WITH RECURSIVE used (table_oid, type_oid) AS (
    SELECT a.attrelid, a.atttypid
    FROM understudy.relations r
    JOIN pg_attribute a ON a.attrelid = r.table_oid AND a.attnum > 0 AND NOT a.attisdropped
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

CREATE OR REPLACE FUNCTION understudy.remember_types() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
  INSERT INTO understudy.type_texts (type_oid, texts)
  SELECT DISTINCT u.type_oid, coalesce(understudy.texts_of_type(u.type_oid), '{}')
  FROM understudy.types_of_tables() u
  ON CONFLICT DO NOTHING
$$;

-- A new label changes no stored value; a new attribute does, and a label with another name.
CREATE OR REPLACE FUNCTION understudy.note_altered_types() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
  INSERT INTO understudy.unseen_changes (table_oid, what)
  SELECT u.table_oid, 'ALTER TYPE changed how values of ' || format_type(u.type_oid, NULL) || ' look'
  FROM understudy.types_of_tables() u
  JOIN understudy.type_texts k ON k.type_oid = u.type_oid
  JOIN pg_type t ON t.oid = u.type_oid
  CROSS JOIN LATERAL (SELECT coalesce(understudy.texts_of_type(u.type_oid), '{}')) AS now (texts)
  WHERE NOT (now.texts @> k.texts AND (t.typtype = 'e' OR k.texts @> now.texts))
  ON CONFLICT DO NOTHING
$$;

CREATE OR REPLACE FUNCTION understudy.note_attached_rows() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  child record;
  holds_rows boolean;
BEGIN
  -- A table that becomes a partition brings its rows along, and no message says so.
  FOR child IN
    SELECT i.inhrelid AS oid, n.nspname AS schema_name, c.relname AS table_name
    FROM pg_event_trigger_ddl_commands() d
    JOIN understudy.relations r ON r.table_oid = d.objid AND d.classid = 'pg_class'::regclass
    JOIN pg_inherits i ON i.inhparent = d.objid
    JOIN pg_class c ON c.oid = i.inhrelid AND c.relispartition AND c.relkind = 'r'
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE NOT EXISTS (SELECT FROM understudy.relations k WHERE k.table_oid = i.inhrelid)
  LOOP
    EXECUTE format('SELECT EXISTS (SELECT FROM ONLY %I.%I)', child.schema_name, child.table_name)
      INTO holds_rows;
    IF holds_rows THEN
      INSERT INTO understudy.unseen_changes (table_oid, what)
      VALUES (child.oid, 'it was attached as a partition with rows in it') ON CONFLICT DO NOTHING;
    END IF;
  END LOOP;
END
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
  understudy.point(text) TO PUBLIC;
