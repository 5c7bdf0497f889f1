/** Builds all that is fuzzed into build/fuzz: native targets and addon with clang, JavaScript with counters. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { instrument } from './instrument.mjs';
import { JAVASCRIPT } from './targets.mjs';

export const BUILD = join(import.meta.dirname, '../../build/fuzz');
const COMPILERS = ['clang++', ...[19, 18, 17, 16, 15, 14].map((version) => `clang++-${version}`)];
const JS = join(BUILD, 'js');
/** What reads bytes that somebody else wrote. What it calls in other folders runs without counters. */
const COUNTED = [
  ...[
    'base/bytes',
    'nbd/wire/',
    'nbd/handshake',
    'nbd/negotiation',
    'segment/format',
    'keys/superblock',
    'keys/dek-record',
    'keys/origins',
  ],
  ...[
    'keys/header-backup',
    'volume/checkpoint-root',
    'volume/map-file/',
    'backup/manifest',
    'backup/index-codec',
  ],
  ...['backup/slot-set', 'kms/local/keyring-codec', 'kms/secret-fields', 'kms/aws/key-uri', 'daemon/exports'],
  ...['base/units', 'daemon/psk-file', 'daemon/addresses', '../test/fuzz/targets/'],
];

/** The compiler, or undefined where there is none that has libFuzzer. */
export function compiler() {
  return COMPILERS.find((name) => {
    const { status, stdout } = spawnSync(name, ['-print-file-name=libclang_rt.fuzzer-x86_64.a'], {
      encoding: 'utf8',
    });
    return status === 0 && stdout.trim().startsWith('/');
  });
}

/** Where the runtime of AddressSanitizer is, which has to be there before Node. */
export function sanitizerOf(clang) {
  return execFileSync(clang, ['-print-file-name=libclang_rt.asan-x86_64.so'], { encoding: 'utf8' }).trim();
}

export function buildNative(clang) {
  const generator = spawnSync('ninja', ['--version']).status === 0 ? ['-G', 'Ninja'] : [];
  quietly('cmake', ['-S', '.', '-B', BUILD, ...generator, '-DFUZZ=ON', `-DCMAKE_CXX_COMPILER=${clang}`]);
  quietly('cmake', ['--build', BUILD, '--target', 'fuzz', '--parallel', '2']);
}

export function buildJavaScript() {
  rmSync(JS, { recursive: true, force: true });
  quietly(process.execPath, ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.fuzz.json']);
  mkdirSync(JS, { recursive: true });
  const files = readdirSync(JS, { recursive: true })
    .filter((file) => file.endsWith('.js'))
    .sort();
  let counters = 0;
  for (const file of files) {
    if (!COUNTED.some((part) => join('src', file).startsWith(join('src/src', part)))) continue;
    const path = join(JS, file);
    const { code, counters: taken } = instrument(readFileSync(path, 'utf8'), counters);
    writeFileSync(path, code);
    counters += taken;
  }
  writeFileSync(join(JS, 'package.json'), '{ "type": "module" }\n');
  writeFileSync(join(JS, 'counters'), String(counters));
  for (const name of JAVASCRIPT) writeProgram(name);
}

/** A target of JavaScript as one program, which libFuzzer can start anew. */
function writeProgram(name) {
  const words = [process.execPath, join(import.meta.dirname, 'run.mjs'), BUILD, name].map(
    (word) => `'${word}'`,
  );
  writeFileSync(join(BUILD, `fuzz-${name}`), `#!/bin/sh\nexec ${words.join(' ')} "$0" "$@"\n`, {
    mode: 0o755,
  });
}

function quietly(program, args) {
  const { status, stdout, stderr, error } = spawnSync(program, args, {
    encoding: 'utf8',
    maxBuffer: 2 ** 26,
  });
  if (status !== 0)
    throw new Error(`${program} ${args.join(' ')}\n${stdout ?? ''}${stderr ?? ''}${error ?? ''}`);
}
