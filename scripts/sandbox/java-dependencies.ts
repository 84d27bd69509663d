/**
 * Downloads Kafka and the schema registry from Maven Central, as pom.xml names them, into a cache
 * directory, and returns the paths of the broker's jars and the registry's archive. About 160 MB,
 * once for each content of pom.xml.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { copyFile, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { UnderstudyError } from '../../src/errors/understudy-error.ts';
import { cached } from './cache.ts';
import { findMaven } from './prerequisites.ts';
import { runCommand } from './run-command.ts';

export interface JavaDependencies {
  /** A directory of jars, for a class path that ends in `/*`. */
  readonly kafkaJars: string;
  readonly registryJar: string;
}

const pomFile = fileURLToPath(new URL('./pom.xml', import.meta.url));
/** 160 MB on a slow line. */
const downloadMaxMs = 15 * 60_000;
const progressEveryMs = 3_000;

export async function javaDependencies(
  cacheDir: string,
  log: (line: string) => void,
): Promise<JavaDependencies> {
  const pom = await readFile(pomFile);
  const key = createHash('sha256').update(pom).digest('hex').slice(0, 16);
  const root = await cached(join(cacheDir, 'java', key), (directory) => download(directory, log));
  const registry = join(root, 'registry');
  const runner = (await readdir(registry)).find((name) => name.endsWith('-runner.jar'));
  if (runner === undefined || !existsSync(join(root, 'kafka'))) {
    throw new UnderstudyError(
      'PREREQUISITE',
      `${root} does not contain the files that pom.xml names`,
      `Remove it, then start again: rm -rf ${root}`,
    );
  }
  return { kafkaJars: join(root, 'kafka'), registryJar: join(registry, runner) };
}

async function download(directory: string, log: (line: string) => void): Promise<void> {
  const maven = await findMaven(log);
  log('downloading Kafka and the schema registry with Maven (once, about 160 MB)');
  // Maven leaves a target/ folder beside the POM; a copy keeps it out of the checkout.
  const copy = join(directory, 'build');
  await copyFile(pomFile, `${copy}.xml`);
  let files = 0;
  let lastLogged = Date.now();
  await runCommand(
    maven,
    ['-B', '-f', `${copy}.xml`, `-DoutputDirectory=${directory}`, 'generate-resources'],
    {
      timeoutMs: downloadMaxMs,
      cwd: directory,
      hint: 'See the last lines above, and check whether ~/.m2/settings.xml names a mirror.',
      onLine: (line) => {
        const file = /Downloaded from \S+ \S*\/(\S+)/.exec(line)?.[1];
        if (file === undefined) return;
        files += 1;
        if (Date.now() - lastLogged < progressEveryMs) return;
        lastLogged = Date.now();
        log(`  ${files} files, last ${file}`);
      },
    },
  );
  await rm(join(directory, 'target'), { recursive: true, force: true });
}
