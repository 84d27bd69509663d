-- From format 1 of the `understudy` schema to format 2. It was run once, at the creation of a node,
-- and gained columns since; tables that are missing are created by 001-understudy.sql, which is run
-- afterwards in the same transaction.

-- A function whose arguments or result are others now cannot be replaced. Triggers hold those that
-- return one, and users may have views over the four that they call: these never changed.
DO $$
DECLARE
  outdated pg_catalog.regprocedure;
BEGIN
  FOR outdated IN
    SELECT p.oid FROM pg_catalog.pg_proc p
    WHERE p.pronamespace = 'understudy'::pg_catalog.regnamespace
      AND p.prorettype NOT IN ('pg_catalog.trigger'::pg_catalog.regtype,
        'pg_catalog.event_trigger'::pg_catalog.regtype)
      AND p.proname NOT IN ('token', 'wait_for', 'covers', 'point')
  LOOP
    EXECUTE pg_catalog.format('DROP FUNCTION %s', outdated);
  END LOOP;
END
$$;

ALTER TABLE IF EXISTS understudy.position
  ADD COLUMN IF NOT EXISTS detached boolean NOT NULL DEFAULT false,
  ADD COLUMN IF NOT EXISTS unfinished text[] NOT NULL DEFAULT '{}';
ALTER TABLE IF EXISTS understudy.relations ADD COLUMN IF NOT EXISTS entered_lsn pg_lsn;
ALTER TABLE IF EXISTS understudy.schema_build
  ADD COLUMN IF NOT EXISTS refused text,
  ADD COLUMN IF NOT EXISTS not_valid boolean NOT NULL DEFAULT false;
ALTER TABLE IF EXISTS understudy.points
  ADD COLUMN IF NOT EXISTS created_at timestamptz NOT NULL DEFAULT clock_timestamp();
