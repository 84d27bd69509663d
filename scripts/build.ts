/**
 * Makes dist/ from src/. Types are checked by `npm run check`. What comes out:
 * - cli.js with chunks/: the command with all its dependencies. Node opens four files instead of a
 *   thousand, so that a command or an agent starts in less than half the time.
 * - index.js, and the declarations of what it exports: the library. Its dependencies stay imports,
 *   so that a program has one copy of each.
 * - third-party-licenses.txt: the licenses of what is in the command.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type BuildOptions, build, type Metafile } from 'esbuild';

const root = fileURLToPath(new URL('../', import.meta.url));
const shared = {
  absWorkingDir: root,
  outdir: 'dist',
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node20.19',
  preserveSymlinks: true,
  logLevel: 'warning',
} satisfies BuildOptions;

/** CommonJS packages call `require` for Node's own modules; a module has to make it. */
const requireForCommonJs = [
  "import { createRequire as createRequireOfBundle } from 'node:module';",
  'const require = createRequireOfBundle(import.meta.url);',
].join('\n');

async function buildCommand(): Promise<Metafile> {
  const { metafile } = await build({
    ...shared,
    entryPoints: ['src/cli.ts'],
    splitting: true,
    chunkNames: 'chunks/[name]-[hash]',
    banner: { js: requireForCommonJs },
    // Optional parts of pg that are not installed and never asked for.
    external: ['pg-native'],
    // pg asks for it to learn where it runs; to answer, Node would load its HTTP client.
    define: { navigator: 'undefined' },
    metafile: true,
  });
  return metafile;
}

async function buildLibrary(): Promise<void> {
  await build({ ...shared, entryPoints: ['src/index.ts'], packages: 'external' });
  const compiler = join(root, 'node_modules/typescript/bin/tsc');
  execFileSync(process.execPath, [compiler, '-p', 'tsconfig.build.json'], { cwd: root });
}

/** Name, version and license text of each package that has a file in the bundle. */
function licenses({ inputs }: Metafile): string {
  const packages = new Set<string>();
  for (const path of Object.keys(inputs)) {
    const found = /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1];
    if (found !== undefined) packages.add(join(root, found));
  }
  return [...packages].sort().map(licenseOf).join('\n');
}

function licenseOf(folder: string): string {
  const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as {
    readonly name: string;
    readonly version: string;
    readonly license?: string;
  };
  const file = readdirSync(folder).find((name) => /^licen[cs]e/i.test(name));
  const text = file === undefined ? '' : readFileSync(join(folder, file), 'utf8').trim();
  const license = manifest.license ?? 'see below';
  return `${manifest.name} ${manifest.version}: ${license}\n\n${text}\n\n${'-'.repeat(80)}\n`;
}

if (existsSync(join(root, 'dist'))) rmSync(join(root, 'dist'), { recursive: true });
const [metafile] = await Promise.all([buildCommand(), buildLibrary()]);
writeFileSync(join(root, 'dist/third-party-licenses.txt'), licenses(metafile));
