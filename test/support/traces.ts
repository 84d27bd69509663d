/**
 * What Understudy leaves in a database. Flows in: nothing; flows out: a query that finds every
 * trace of it, among them a trigger named `always` that is not put back as it was.
 */
export const tracesQuery = `
  SELECT 'schema ' || nspname AS trace FROM pg_namespace WHERE nspname = 'understudy'
  UNION ALL SELECT 'slot ' || slot_name FROM pg_replication_slots
    WHERE database = current_database()
  UNION ALL SELECT 'publication ' || pubname FROM pg_publication
  UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgname LIKE 'understudy%'
  UNION ALL SELECT 'event trigger ' || evtname FROM pg_event_trigger
  UNION ALL SELECT 'setting ' || setconfig::text FROM pg_db_role_setting s
    JOIN pg_database d ON d.oid = s.setdatabase WHERE d.datname = current_database()
  UNION ALL SELECT 'trigger that is off' FROM pg_trigger
    WHERE tgname = 'always' AND tgenabled <> 'A'
  UNION ALL SELECT 'lock ' || objid FROM pg_locks l WHERE locktype = 'advisory'
    AND objid = (SELECT oid FROM pg_database WHERE datname = current_database())`;
