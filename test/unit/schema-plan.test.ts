/**
 * What a dump's statements are taken for: which come before the rows, what each is run under, whose
 * rights it gives, and that a description shows no option of it.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { schemaStatements } from '../../src/catalog/dump/schema-dump.ts';
import { splitPostData } from '../../src/catalog/dump/schema-payload.ts';
import {
  buildSteps,
  describeStatement,
  enablesTriggers,
  extensionOf,
  foreignKeyOf,
  rolesOf,
} from '../../src/follower/schema/schema-plan.ts';
import { pauseAfterRefusalMs } from '../../src/follower/schema/schema-refusal.ts';

test('identities come with the tables, all else later', () => {
  const identity = [
    'ALTER TABLE ONLY public.t\n    ADD CONSTRAINT t_pkey PRIMARY KEY (id)',
    'CREATE UNIQUE INDEX "i;""1" ON "My s".t USING btree (a)',
    'ALTER TABLE ONLY "My s".t REPLICA IDENTITY USING INDEX "i;""1"',
    'ALTER TABLE ONLY public.u\n    ADD CONSTRAINT u_a UNIQUE (a)',
    'ALTER TABLE ONLY public.u REPLICA IDENTITY USING INDEX u_a',
    'CREATE UNIQUE INDEX on_parent ON ONLY public.parent USING btree (a)',
    'CREATE UNIQUE INDEX on_part ON parts.part USING btree (a)',
    'ALTER TABLE ONLY public.parent REPLICA IDENTITY USING INDEX on_parent',
    'ALTER INDEX public.on_parent ATTACH PARTITION parts.on_part',
    'ALTER TABLE ONLY public.root\n    ADD CONSTRAINT root_pkey PRIMARY KEY (id)',
    'ALTER TABLE ONLY public.leaf\n    ADD CONSTRAINT leaf_pkey PRIMARY KEY (id)',
    'ALTER INDEX public.root_pkey ATTACH PARTITION public.leaf_pkey',
  ];
  const rest = [
    'CREATE UNIQUE INDEX "i;""1" ON public.t USING btree (a)',
    'ALTER TABLE ONLY other.t\n    ADD CONSTRAINT u_a UNIQUE (a)',
    'ALTER TABLE ONLY public.t\n    ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES public.u(a)',
    'CREATE INDEX late ON public.t USING btree (a)',
    'ALTER TABLE public.t CLUSTER ON t_pkey',
    'ALTER INDEX public.root_v_idx ATTACH PARTITION public.leaf_v_idx',
  ];
  const mixed = [...rest.slice(0, 3), ...identity, ...rest.slice(3)];
  assert.equal(splitPostData(mixed), { identity, rest });
});

test('settings of a dump hold for what comes behind them, and each step has its own', () => {
  const schema = {
    preData: [
      'SET default_table_access_method = heap',
      'CREATE TABLE a.t ()',
      'SET SESSION AUTHORIZATION "Some one"',
      'GRANT SELECT ON TABLE a.t TO b',
      'RESET SESSION AUTHORIZATION',
      'SET default_table_access_method = other',
      'CREATE TABLE a.u ()',
    ],
    postData: [
      'CREATE INDEX i ON a.t (v)',
      'ALTER TABLE ONLY a.t\n    ADD CONSTRAINT k PRIMARY KEY (id)',
    ],
  };
  const heap = 'SET LOCAL default_table_access_method = heap';
  assert.equal(buildSteps(schema), [
    { phase: 'pre-data', statement: schema.preData[1], settings: [heap] },
    {
      phase: 'pre-data',
      statement: schema.preData[3],
      settings: [heap, 'SET LOCAL SESSION AUTHORIZATION "Some one"'],
    },
    {
      phase: 'pre-data',
      statement: schema.preData[6],
      settings: ['SET LOCAL default_table_access_method = other'],
    },
    { phase: 'pre-data', statement: schema.postData[1], settings: [] },
    { phase: 'post-data', statement: schema.postData[0], settings: [] },
  ]);
});

test('roles are found where a statement grants something to a role, and nowhere else', () => {
  const acting = ['SET LOCAL SESSION AUTHORIZATION "gi""ver"'];
  for (const [statement, roles] of [
    ['ALTER TABLE a.t OWNER TO "Own ""er"', ['Own "er']],
    ['ALTER FUNCTION a."x OWNER TO y"(integer) OWNER TO z', ['z']],
    ['GRANT SELECT ON TABLE a.t TO reader WITH GRANT OPTION', ['reader']],
    ['GRANT SELECT(a),UPDATE(b) ON TABLE a.t TO PUBLIC', []],
    ['REVOKE ALL ON FUNCTION a.f() FROM reader', ['reader']],
    ['ALTER DEFAULT PRIVILEGES FOR ROLE o IN SCHEMA a GRANT SELECT ON TABLES  TO r', ['o', 'r']],
    ['CREATE POLICY p ON a.t TO reader', null],
    ['ALTER TABLE a.t ENABLE ROW LEVEL SECURITY', null],
    ['CREATE TABLE a.t (x text DEFAULT $$GRANT a TO b$$)', null],
  ] as const) {
    assert.equal(rolesOf({ statement, settings: [] }), roles, statement);
    if (roles !== null) {
      assert.equal(rolesOf({ statement, settings: acting }), ['gi"ver', ...roles], statement);
    }
  }
});

test('a description names what is made and shows nothing of what it is made of', () => {
  const mapping = `CREATE USER MAPPING FOR a SERVER b OPTIONS (password 'secret')`;
  assert.is(describeStatement(mapping), 'CREATE USER MAPPING FOR a SERVER b OPTIONS');
  const subject = `ALTER TABLE ONLY a.t\n    ADD CONSTRAINT f FOREIGN KEY (x) REFERENCES a.u(y)`;
  assert.is(describeStatement(subject), 'ALTER TABLE ONLY a.t ADD CONSTRAINT f FOREIGN KEY');
  assert.ok(describeStatement(`CREATE TABLE ${'x'.repeat(300)}`).length < 130);
});

test('extensions are named, also odd ones', () => {
  assert.is(extensionOf('CREATE EXTENSION IF NOT EXISTS citext WITH SCHEMA public'), 'citext');
  assert.is(extensionOf('CREATE EXTENSION "uuid-ossp" WITH SCHEMA public'), 'uuid-ossp');
  assert.is(extensionOf("COMMENT ON EXTENSION citext IS 'x'"), null);
});

test('foreign keys are known by their table and name', () => {
  const rest = 'FOREIGN KEY (x) REFERENCES a.u(y)';
  const plain = `ALTER TABLE ONLY a.t\n    ADD CONSTRAINT f ${rest}`;
  assert.is(foreignKeyOf(plain), 'a.t.f');
  const odd = `ALTER TABLE "A b"."t.""u" ADD CONSTRAINT "f g" ${rest} DEFERRABLE`;
  assert.is(foreignKeyOf(odd), '"A b"."t.""u"."f g"');
  assert.is(foreignKeyOf('ALTER TABLE ONLY a.t ADD CONSTRAINT u UNIQUE (x)'), null);
});

test('what was refused is left alone for longer and longer, and by how long it takes', () => {
  const most = (): number => 1;
  assert.is(pauseAfterRefusalMs(1, 5, most), 4_000);
  assert.is(pauseAfterRefusalMs(2, 5, most), 8_000);
  assert.is(pauseAfterRefusalMs(50, 5, most), 600_000);
  assert.is(pauseAfterRefusalMs(50, 3_600_000, most), 36_000_000);
});

test('what may fire in the applier is known', () => {
  assert.ok(enablesTriggers('ALTER TABLE a.t ENABLE ALWAYS TRIGGER x'));
  assert.ok(enablesTriggers('ALTER TABLE a.t ENABLE REPLICA RULE x'));
  assert.not(enablesTriggers('ALTER TABLE a.t DISABLE TRIGGER x'));
  assert.not(enablesTriggers('ALTER EVENT TRIGGER x ENABLE ALWAYS'));
});

test('of a dump nothing is kept that is ours or that every session of ours has', () => {
  const dump = `
SET statement_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';
SELECT pg_catalog.set_config('search_path', '', false);
SET default_table_access_method = heap;
CREATE TRIGGER understudy_guard BEFORE INSERT OR DELETE OR UPDATE ON public.t FOR EACH STATEMENT
 EXECUTE FUNCTION understudy.refuse_write();
ALTER TABLE public.t DISABLE TRIGGER understudy_guard;
CREATE TRIGGER understudy_guard_truncate BEFORE TRUNCATE ON public.t FOR EACH STATEMENT
 EXECUTE FUNCTION understudy.refuse_write();
ALTER TABLE public.t DISABLE TRIGGER understudy_guard_truncate;
CREATE EVENT TRIGGER understudy_watch ON ddl_command_end
   EXECUTE FUNCTION understudy.watch_ddl();
CREATE EVENT TRIGGER understudy_watch_rewrite ON table_rewrite
   EXECUTE FUNCTION understudy.watch_rewrite();
CREATE EVENT TRIGGER understudy_guard_end ON ddl_command_end
   EXECUTE FUNCTION understudy.refuse_ddl();
ALTER EVENT TRIGGER understudy_guard_end DISABLE;
ALTER EVENT TRIGGER understudy_watch OWNER TO a;
CREATE EVENT TRIGGER mine ON ddl_command_end EXECUTE FUNCTION public.f();
CREATE TRIGGER understudy_guardian BEFORE INSERT ON public.t EXECUTE FUNCTION public.g();
ALTER TABLE public.t DISABLE TRIGGER understudy_guardian;`;
  assert.equal(schemaStatements(dump), [
    'SET default_table_access_method = heap',
    'CREATE EVENT TRIGGER mine ON ddl_command_end EXECUTE FUNCTION public.f()',
    'CREATE TRIGGER understudy_guardian BEFORE INSERT ON public.t EXECUTE FUNCTION public.g()',
    'ALTER TABLE public.t DISABLE TRIGGER understudy_guardian',
  ]);
});

test.run();
