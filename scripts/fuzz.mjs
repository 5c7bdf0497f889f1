/**
 * Coverage-guided fuzzing with libFuzzer (docs/FUZZING.md): npm run fuzz -- [OPTIONS] [TARGET]...
 *
 *   --seconds N   for each target, 60 unless said; 0 replays the corpus
 *   --runs N      at most so many inputs, the corpus among them
 *   --seed N      repeats a run, 1 unless said
 *   --file FILE   that input alone
 *   --merge       afterwards makes test/fuzz/corpus of a small set of inputs that reaches as many branches
 *   --list        names the targets
 *   --can         exits with 0 where this machine can, else with 2
 *   --build       builds them, and no more; --built runs what was built
 *
 * Exits with 1 after the first input that is a finding, whose path it prints.
 */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { BUILD, buildJavaScript, buildNative, compiler, sanitizerOf } from './fuzz/build.mjs';
import { NATIVE, TARGETS } from './fuzz/targets.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seconds: { type: 'string', default: '60' },
    runs: { type: 'string' },
    seed: { type: 'string', default: '1' },
    file: { type: 'string' },
    merge: { type: 'boolean', default: false },
    list: { type: 'boolean', default: false },
    can: { type: 'boolean', default: false },
    build: { type: 'boolean', default: false },
    built: { type: 'boolean', default: false },
  },
});
if (values.list) {
  console.log(TARGETS.join('\n'));
  process.exit(0);
}
const targets = positionals.length === 0 ? TARGETS : positionals;
const unknown = targets.find((name) => !TARGETS.includes(name));
if (unknown !== undefined) fail(2, `no target is named ${unknown}; there are ${TARGETS.join(', ')}`);
const clang = compiler();
if (clang === undefined)
  fail(2, 'fuzzing needs clang with libFuzzer: install clang-14 and libclang-rt-14-dev');

if (values.can) process.exit(0);

const file = values.file === undefined ? undefined : resolve(values.file);
process.chdir(join(import.meta.dirname, '..'));
const SEEDS = join(BUILD, 'seeds');
if (!values.built) build();
if (!values.build) for (const name of targets) fuzz(name);

function build() {
  buildNative(clang);
  buildJavaScript();
  rmSync(SEEDS, { recursive: true, force: true });
  must('seeds', process.execPath, ['scripts/fuzz/seeds.mjs', BUILD, SEEDS], environment());
}

function fuzz(name) {
  const kept = join('test/fuzz/corpus', name);
  const fresh = join(BUILD, 'corpus', name);
  const findings = join(BUILD, 'findings');
  const seeds = join(SEEDS, name);
  for (const directory of [kept, fresh, findings, seeds]) mkdirSync(directory, { recursive: true });
  const common = [
    `-artifact_prefix=${join(findings, name)}-`,
    '-print_funcs=0',
    '-max_len=8192',
    '-timeout=20',
  ];
  const inputs = file === undefined ? limits() : [file];
  const corpora = file === undefined ? [fresh, kept, seeds] : [];
  console.log(`== ${name}`);
  run(name, [...common, ...inputs, ...corpora]);
  if (values.merge) merge(name, [kept, fresh, seeds], common);
}

/** Corpora are replayed first, whatever the limits. */
function limits() {
  const runs = values.seconds === '0' ? '0' : values.runs;
  return [
    `-seed=${values.seed}`,
    ...(runs === undefined ? [] : [`-runs=${runs}`]),
    ...(values.seconds === '0' ? [] : [`-max_total_time=${values.seconds}`]),
  ];
}

/** A small set that reaches every branch that they reach, for the repository. */
function merge(name, corpora, common) {
  // How often a loop ran is how long a buffer was, which is what kernels get wrong.
  const counters = NATIVE.includes(name) ? 1 : 0;
  const merged = join(BUILD, 'merged', name);
  rmSync(merged, { recursive: true, force: true });
  mkdirSync(merged, { recursive: true });
  run(name, [...common, '-set_cover_merge=1', `-use_counters=${counters}`, merged, ...corpora]);
  const [kept] = corpora;
  rmSync(kept, { recursive: true });
  cpSync(merged, kept, { recursive: true });
  console.log(`${kept}: ${readdirSync(kept).length} inputs`);
}

function run(name, args) {
  must(name, join(BUILD, `fuzz-${name}`), args, NATIVE.includes(name) ? {} : environment());
}

function must(name, program, args, env) {
  const { status, signal } = spawnSync(program, args, { stdio: 'inherit', env: { ...process.env, ...env } });
  if (status !== 0)
    fail(1, `${name}: ${signal ?? `status ${status}`}; npm run fuzz -- --file FILE ${name} repeats it`);
}

/** The addon has libFuzzer and the sanitizers inside; Node, which has not, needs their runtime first and leaves memory at its end. */
function environment() {
  return {
    SEALBD_TESTING: '1',
    SEALBD_ADDON: join(BUILD, 'fuzz-addon.node'),
    LD_PRELOAD: sanitizerOf(clang),
    ASAN_OPTIONS: 'detect_leaks=0:quarantine_size_mb=16',
  };
}

function fail(status, message) {
  console.error(message);
  process.exit(status);
}
