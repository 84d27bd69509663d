-- Where a follower keeps the functions by which its applier changes the rows of each table as the
-- table's owner (src/follower/apply/row-functions.ts), and what keeps code of an owner from leaving
-- anything behind in the applier's session. Running it again changes nothing.

CREATE SCHEMA IF NOT EXISTS understudy_rows;
-- No role but the agent's can name what is in it: an owner cannot alter the functions that are its
-- own.
DO $$
DECLARE
  grantee text;
BEGIN
  EXECUTE format('ALTER SCHEMA understudy_rows OWNER TO %I', current_user);
  FOR grantee IN
    SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE format('%I', r.rolname) END
    FROM pg_catalog.pg_namespace n
    CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) a
    LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
    WHERE n.nspname = 'understudy_rows' AND a.grantee <> n.nspowner
  LOOP
    EXECUTE 'REVOKE ALL ON SCHEMA understudy_rows FROM ' || grantee || ' CASCADE';
  END LOOP;
END
$$;

-- Fires in sessions of the replica role too. There the agent runs DDL as the user that logged in;
-- any other user is the owner of a table whose code runs: a constraint, an index, a domain. What it
-- created or enabled could run later as the user that logged in.
CREATE OR REPLACE FUNCTION understudy.refuse_owner_ddl() RETURNS event_trigger
LANGUAGE plpgsql SECURITY INVOKER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF current_setting('session_replication_role') = 'replica' AND current_user <> session_user
      AND NOT (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = current_user) THEN
    RAISE EXCEPTION 'cannot % as % in a session of the replica role that is not its own', TG_TAG,
        current_user
      USING ERRCODE = 'insufficient_privilege',
        HINT = 'Code of a table (a constraint, an index, a domain) must not run DDL. In a session '
          'of yours, run it without SET ROLE.';
  END IF;
END
$$;
REVOKE ALL ON FUNCTION understudy.refuse_owner_ddl() FROM PUBLIC;

DO $$
BEGIN
  IF NOT EXISTS (
      SELECT FROM pg_catalog.pg_event_trigger WHERE evtname = 'understudy_guard_rows') THEN
    CREATE EVENT TRIGGER understudy_guard_rows ON ddl_command_start
      EXECUTE FUNCTION understudy.refuse_owner_ddl();
  END IF;
  ALTER EVENT TRIGGER understudy_guard_rows ENABLE ALWAYS;
END
$$;
