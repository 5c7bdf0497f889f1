/** Peers that can't run are named, with the program that is missing: a comparison never gets smaller in silence. */
import { mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { availablePeers, PEERS } from '../../bench/nbd/peers.js';
import { temporaryDirectory } from '../support/key-fixtures.js';

afterEach(() => vi.unstubAllEnvs());

/** A PATH with a shell, to look for programs, and these. */
function pathWith(...programs: string[]): void {
  const directory = join(temporaryDirectory(), 'bin');
  mkdirSync(directory);
  symlinkSync('/bin/sh', join(directory, 'sh'));
  for (const program of programs) symlinkSync('/bin/true', join(directory, program));
  vi.stubEnv('PATH', directory);
}

describe('peers of the benchmark', () => {
  it('are all there where their programs are', () => {
    pathWith('nbdkit', 'qemu-nbd', 'qemu-img');
    expect(availablePeers()).toEqual({ peers: PEERS, missing: [] });
  });

  it('are named with what they lack', () => {
    pathWith('qemu-nbd');
    const { peers, missing } = availablePeers();
    expect(peers.map(({ name }) => name)).toEqual(['qemu-nbd raw']);
    expect(missing).toEqual([
      '**nbdkit file is missing** from the comparison: not installed: nbdkit.',
      '**nbdkit luks is missing** from the comparison: not installed: nbdkit, qemu-img.',
      '**qemu-nbd luks is missing** from the comparison: not installed: qemu-img.',
    ]);
  });
});
