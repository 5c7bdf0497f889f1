/** Key derivation and MACs, as opening a segment, a checkpoint or a map file needs them; HKDF of OpenSSL beside them. */
import { hkdfSync, randomBytes } from 'node:crypto';
import { addon, SUITE_CTR, SUITE_GCM } from '../../src/native/addon.js';
import { runGroup } from '../group.js';
import type { GroupOptions, GroupResult } from '../result.js';
import { type Operation, timeOperations } from './timed.js';

const CONTEXT_BYTES = 57;
const UUID_BYTES = 16;
const TIME_MS = 500;
const TIME_QUICK_MS = 5;

function operations(): Operation[] {
  const dek = addon.keyImport(randomBytes(32));
  const derive = (suite: number): Operation['run'] => {
    const context = Buffer.alloc(CONTEXT_BYTES, suite);
    return () => addon.segmentKeyRelease(addon.segmentKeyDerive(dek, suite, context));
  };
  const uuid = Buffer.alloc(UUID_BYTES, 1);
  const mac = (bytes: number): Operation['run'] => {
    const data = randomBytes(bytes);
    return () => addon.keyMac(dek, 'sealbd/v1/checkpoint', uuid, data);
  };
  const secret = randomBytes(32);
  return [
    { name: 'segment key, aes-256-gcm: derive, expand, hash powers, wipe', run: derive(SUITE_GCM) },
    { name: 'segment key, aes-256-ctr: derive, expand, MAC key, wipe', run: derive(SUITE_CTR) },
    { name: 'keyMac of 16 B, with its KDF', run: mac(16) },
    { name: 'keyMac of 4 KiB, with its KDF', run: mac(4096) },
    { name: 'keyMac of 64 KiB, with its KDF', run: mac(65_536) },
    {
      name: 'HKDF-SHA-256 of OpenSSL through node:crypto, 32 B',
      run: () => hkdfSync('sha256', secret, uuid, 'x', 32),
    },
  ];
}

async function measure({ quick }: GroupOptions): Promise<GroupResult> {
  const all = operations();
  const nanoseconds = await timeOperations(all, quick ? TIME_QUICK_MS : TIME_MS);
  return {
    notes: [
      'The KDF is SP 800-108 with CMAC-AES256, derived anew in every call; a volume derives a key once for each segment of up to 64 MiB.',
    ],
    tables: [
      {
        title: 'Key derivation and MACs',
        columns: [
          { key: 'operation', label: 'operation' },
          { key: 'nanoseconds', label: 'median ns', digits: 0 },
        ],
        rows: all.map(({ name }, i) => ({ operation: name, nanoseconds: nanoseconds[i] })),
      },
    ],
  };
}

await runGroup(measure);
