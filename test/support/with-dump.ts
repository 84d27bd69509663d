/**
 * Tests that need a pg_dump which can read the servers of the stack. Flows in: a stack; flows out:
 * `test`, or, on a machine whose servers were fetched without client programs, one that counts as
 * skipped, and a line that says why.
 */
import { type Test, test } from 'uvu';
import { ddlSetting } from '../../scripts/sandbox/fitting-dump.ts';
import type { Stack } from './stack.ts';

export async function testWithDump(stack: Stack): Promise<Test['skip']> {
  const setting = await ddlSetting(stack.postgres[0]?.superuserUrl ?? '');
  if (setting.ddl === undefined) return test;
  process.stderr.write('skipped: no pg_dump here can read these servers\n');
  return test.skip;
}
