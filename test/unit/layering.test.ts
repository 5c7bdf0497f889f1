import { readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const SRC = fileURLToPath(new URL('../../src', import.meta.url));

/** Which folders each folder of src may import from, beside itself and base. */
const ALLOWED: Record<string, readonly string[]> = {
  base: [],
  native: [],
  device: ['native'],
  nbd: ['device', 'native'],
  store: ['native'],
  cipher: ['native'],
  segment: ['cipher', 'store', 'native'],
  volume: ['device', 'segment', 'cipher', 'store', 'native'],
  kms: ['native'],
  keys: ['kms', 'native', 'store'],
  admin: ['volume', 'backup', 'keys', 'kms', 'cipher'],
  backup: ['volume', 'segment', 'store', 'keys', 'kms', 'cipher', 'native'],
  daemon: [
    'backup',
    'native',
    'device',
    'nbd',
    'store',
    'cipher',
    'segment',
    'volume',
    'kms',
    'keys',
    'admin',
  ],
  cli: ['daemon', 'backup', 'admin', 'cipher', 'keys', 'kms'],
};

function sources(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => join(folder, name));
}

function importsOf(file: string): string[] {
  const text = readFileSync(file, 'utf8');
  return [...text.matchAll(/(?:from|import)\s*\(?\s*'(\.[^']+)'/g)].map((match) => match[1]);
}

const folderOf = (file: string): string => relative(SRC, file).split('/')[0];

describe('imports point one way', () => {
  for (const folder of readdirSync(SRC)) {
    it(`${folder}/ imports only from the folders below it`, () => {
      expect(Object.keys(ALLOWED)).toContain(folder);
      const wrong: string[] = [];
      for (const file of sources(join(SRC, folder))) {
        for (const path of importsOf(file)) {
          const to = folderOf(join(file, '..', path));
          if (to === folder || to === 'base' || ALLOWED[folder].includes(to)) continue;
          wrong.push(`${relative(SRC, file)} imports ${path}`);
        }
      }
      expect(wrong).toEqual([]);
    });
  }
});
