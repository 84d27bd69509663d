/**
 * `npm run demo`: a shop on three Postgres nodes loses its leader under load, a follower is
 * promoted, and every promise is checked. It prints the story to stdout, and exits with 0 only when
 * every claim was proved. However it ends, no process is left and the sandbox directory is deleted.
 */
import { parseArgs } from 'node:util';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { Screen } from './screen.ts';
import { furnish, type Stage, setStage } from './stage.ts';
import { Story } from './story.ts';
import { Understudy } from './understudy-command.ts';

const usage = `Usage: npm run demo -- [options]

  --stay   leave everything running at the end, until Ctrl-C, to explore
  --keep   keep the sandbox directory, with all logs
`;

const signals = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;

/** Aborted by a signal. The sandbox handles the signal too, and ends its servers itself. */
function listenForSignals(): { readonly stop: AbortController; readonly exit: () => number } {
  const stop = new AbortController();
  let exit = 0;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => {
      exit = signals[signal];
      stop.abort(new Error(`stopped by ${signal}`));
    });
  }
  return { stop, exit: () => exit };
}

async function play(screen: Screen, stage: Stage, stay: boolean): Promise<number> {
  const { stop, exit } = listenForSignals();
  const aborted = new Promise<never>((_, reject) => {
    stop.signal.addEventListener('abort', () => reject(stop.signal.reason));
  });
  // Each race with it below reports it.
  aborted.catch(() => undefined);
  let understudy: Understudy | null = null;
  try {
    understudy = new Understudy(stage.sandbox, stage.config, screen, stop.signal);
    await Promise.race([furnish(stage), aborted]);
    const proved = await Promise.race([new Story(stage, understudy, screen).play(stay), aborted]);
    if (stay) await stayUp(screen, stage, aborted);
    else suggestMore(screen);
    return proved ? 0 : 1;
  } catch (error) {
    // Tasks that still run beside the story print nothing any more.
    const last = screen.handOver();
    last.line('');
    if (exit() !== 0) {
      last.line('interrupted: everything was stopped and removed');
      return exit();
    }
    fail(last, error);
    await understudy?.showLogs(last);
    return 1;
  } finally {
    stop.abort(new Error('the demo is over'));
    await stage.sandbox.stop();
  }
}

function fail(screen: Screen, error: unknown): void {
  screen.line(screen.style('The demo failed.', 'bold', 'red'));
  if (error instanceof UnderstudyError) {
    screen.line(`error: ${error.message}`);
    screen.line(`HINT: ${error.hint}`);
  } else screen.line(error instanceof Error ? (error.stack ?? error.message) : String(error));
}

function suggestMore(screen: Screen): void {
  screen.line('');
  screen.line('Try more:');
  screen.line('  npm run demo -- --stay    the same, and everything stays up for you to explore');
  screen.line('  npm run sandbox           empty servers of your own, until Ctrl-C');
  screen.line('  node dist/cli.js --help   all commands of understudy');
}

async function stayUp(screen: Screen, stage: Stage, aborted: Promise<never>): Promise<void> {
  screen.line('');
  screen.line('Everything stays up until Ctrl-C. In another terminal:');
  screen.line(`  export UNDERSTUDY_CONFIG='${stage.config}'`);
  screen.line('  node dist/cli.js status');
  screen.line('  node dist/cli.js point a-name-of-yours');
  screen.line(`The logs of the agents and of all servers are in ${stage.sandbox.dir}.`);
  const keepAlive = setInterval(() => undefined, 60_000);
  await aborted.finally(() => clearInterval(keepAlive));
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      stay: { type: 'boolean', default: false },
      keep: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(usage);
    return 0;
  }
  const screen = new Screen(process.stdout, Date.now);
  screen.line(screen.style('Understudy: a shop loses its leader, and nothing else', 'bold'));
  screen.heading('1  The stage', [
    'Three Postgres servers, a Kafka broker and a schema registry, all real, all on this machine.',
    'The first time they are downloaded, which takes minutes.',
  ]);
  const stage = await setStage(values.keep, (line) => screen.line(line));
  return play(screen, stage, values.stay);
}

try {
  process.exitCode = await main();
} catch (error) {
  const known = error instanceof UnderstudyError;
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.stderr.write(`HINT: ${known ? error.hint : 'npm run demo -- --help'}\n`);
  process.exitCode = known ? error.exit : 1;
}
process.exit();
