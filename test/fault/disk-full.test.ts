/**
 * What breaks: the disk of the leader's Postgres, of the follower's, and of the broker is full to
 * the last byte, and freed again later. Servers refuse, crash, and may not even start. The rules: a
 * full disk is an error that passes; nothing is confirmed or applied meanwhile that was not
 * written, so that afterwards everything continues where it was. Each server has a small disk of
 * its own.
 */
// time-limit: 400s
// runs: full, since only root may mount its disks
import { test } from 'uvu';
import { type PostgresServer, type Sandbox, startSandbox } from '../../scripts/sandbox/sandbox.ts';
import { FleetUnderLoad, fewWorkloads } from '../support/fleet-under-load.ts';
import { SmallDisk } from '../support/small-disk.ts';
import { type Stack, useStack } from '../support/stack.ts';

/** An empty server, its WAL and what the writers leave, with room for a few more segments. */
const postgresMegabytes = 220;
const brokerMegabytes = 160;
const walSettings = { min_wal_size: '32MB', max_wal_size: '48MB' };

interface Site {
  readonly disk: SmallDisk;
  readonly sandbox: Sandbox;
}

let stack: Stack;
let sites: readonly Site[] = [];
let under: FleetUnderLoad;

const disks = await mountAll([postgresMegabytes, postgresMegabytes, brokerMegabytes]);
const withDisks = disks === null ? test.skip : test;

async function mountAll(sizes: readonly number[]): Promise<readonly SmallDisk[] | null> {
  const mounted: SmallDisk[] = [];
  for (const size of sizes) {
    const disk = await SmallDisk.mount(size);
    if (disk !== null) mounted.push(disk);
  }
  return mounted.length === sizes.length ? mounted : null;
}

test.before(async () => {
  if (disks === null) return;
  stack = await useStack({ postgres: 2 });
  const servers = { postgres: 1, brokers: 0 } as const;
  const broker = { postgres: 0, brokers: 1 } as const;
  sites = await Promise.all(
    disks.map(async (disk, at) => {
      const parts = at < 2 ? servers : broker;
      const options = { ...parts, registry: false, dir: disk.dir, log: () => undefined };
      return { disk, sandbox: await startSandbox(options) };
    }),
  );
  const [a, b] = [serverOf('leader'), serverOf('follower')];
  await Promise.all([a.configure(walSettings), b.configure(walSettings)]);
  const brokers = site('broker').sandbox.brokers;
  const workloads = fewWorkloads;
  under = await FleetUnderLoad.start({
    ...{ stack, partitions: 2, servers: { a, b }, brokers, workloads },
  });
});

test.after(async () => {
  if (disks === null) return;
  await under.close();
  for (const { sandbox, disk } of sites) {
    await sandbox.stop();
    await disk.free();
    await disk.unmount();
  }
  await stack.close();
});

function site(whose: 'leader' | 'follower' | 'broker'): Site {
  const found = sites[['leader', 'follower', 'broker'].indexOf(whose)];
  if (found === undefined) throw new Error(`nothing runs for the ${whose}`);
  return found;
}

function serverOf(whose: 'leader' | 'follower'): PostgresServer {
  const [server] = site(whose).sandbox.postgres;
  if (server === undefined) throw new Error(`no server of the ${whose} runs`);
  return server;
}

/** Uses up the WAL segments that exist, until the server fails. */
async function exhaust(node: 'a' | 'b'): Promise<void> {
  const fails = (): Promise<boolean> => {
    return under.fleet.tamper(node, walEater).then(
      () => false,
      () => true,
    );
  };
  await under.fleet.until(`the server of ${node} fails without a disk`, fails, { pollMs: 0 });
}

const walEater = 'SELECT txid_current(); SELECT pg_switch_wal()';

for (const [whose, node] of [
  ['leader', 'a'],
  ['follower', 'b'],
] as const) {
  withDisks(`a full disk of the ${whose}’s Postgres`, async () => {
    const { disk } = site(whose);
    const agent = under.fleet.agent(node);
    const before = agent.log.length;
    await under.arrivals(20);
    await disk.fill();
    await exhaust(node);
    await agent.logged(/POSTGRES_UNREACHABLE|No space left|recovery mode/, before);
    if (whose === 'follower') await under.progress(50);
    await disk.free();
    const server = serverOf(whose);
    await server.kill();
    await server.start();
    await under.isExact();
  });
}

withDisks('a full disk of the broker', async () => {
  const { disk, sandbox } = site('broker');
  const before = under.leaderAgent.log.length;
  await under.arrivals(20);
  await disk.fill();
  await under.leaderAgent.logged(/KAFKA_UNREACHABLE/, before);
  await under.progress(50);
  await disk.free();
  const [broker] = sandbox.kafka;
  await broker?.kill();
  await broker?.start();
  await under.isExact();
});

test.run();
