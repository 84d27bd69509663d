/**
 * Every verb of the command line by name. A verb of this version has a summary for --help and a
 * module that is imported only when the verb is used, so that --help and usage errors are fast.
 * A verb of a later version is known, so that it is refused by name and not as a typing error.
 */
import { type BoundCommand, bindCommand } from './command.ts';

interface VerbEntry {
  /** What follows the verb, for --help. */
  readonly synopsis: string;
  readonly summary: string;
  readonly load: () => Promise<BoundCommand>;
}

/** In the order of --help: set up, run, watch, change. */
export const verbs: Readonly<Record<string, VerbEntry>> = {
  check: {
    synopsis: '[--all] [--find-keys] [--sql [node]]',
    summary: 'check servers, settings, permissions and tables',
    load: async () => bindCommand((await import('./check.ts')).checkCommand),
  },
  init: {
    synopsis: '[--leader <node>] [--replace-rows]',
    summary: 'create the topics and begin the first epoch',
    load: async () => bindCommand((await import('./init.ts')).initCommand),
  },
  run: {
    synopsis: '<node…> [--until <point>] [--replace]',
    summary: 'serve nodes, as leader or follower, until stopped',
    load: async () => bindCommand((await import('./run.ts')).runCommand),
  },
  status: {
    synopsis: '[--watch]',
    summary: 'show the leader, and the position of every node',
    load: async () => bindCommand((await import('./status.ts')).statusCommand),
  },
  point: {
    synopsis: '<label>',
    summary: 'create a named consistency point now',
    load: async () => bindCommand((await import('./point.ts')).pointCommand),
  },
  points: {
    synopsis: '',
    summary: 'list the named consistency points',
    load: async () => bindCommand((await import('./points.ts')).pointsCommand),
  },
  wait: {
    synopsis: '<node> --at <point>',
    summary: 'wait until a node has reached a point',
    load: async () => bindCommand((await import('./wait.ts')).waitCommand),
  },
  verify: {
    synopsis: '[node…] [--show-rows]',
    summary: 'compare nodes with the leader at one LSN, and report the rows that differ',
    load: async () => bindCommand((await import('./verify.ts')).verifyCommand),
  },
  resnapshot: {
    synopsis: '<table…> | --all',
    summary: 'send every row of tables again; followers lose rows that the leader does not have',
    load: async () => bindCommand((await import('./resnapshot.ts')).resnapshotCommand),
  },
  failover: {
    synopsis: '<node> [--dry-run]',
    summary: 'promote a follower because the leader is lost',
    load: async () => bindCommand((await import('./failover.ts')).failoverCommand),
  },
  detach: {
    synopsis: '<node> [--at <point>]',
    summary: 'stop a follower at a point and make it a database of its own',
    load: async () => bindCommand((await import('./detach.ts')).detachCommand),
  },
  rebuild: {
    synopsis: '<node> [--in-place]',
    summary: 'rebuild a follower from the log',
    load: async () => bindCommand((await import('./rebuild.ts')).rebuildCommand),
  },
  'repair-damage': {
    synopsis: '--reason <text>',
    summary: 'close damage of the topic: have every row published again, and record why',
    load: async () => bindCommand((await import('./repair-damage.ts')).repairDamageCommand),
  },
  destroy: {
    synopsis: '[--yes | --stream <id>]',
    summary: 'remove all that Understudy created, in Kafka and in the databases',
    load: async () => bindCommand((await import('./destroy.ts')).destroyCommand),
  },
};

export const laterVerbs: readonly string[] = [
  'history',
  'switchover',
  'rejoin',
  'skip',
  'discarded',
];
