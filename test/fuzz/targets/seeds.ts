/**
 * Inputs that each target begins with, beside its corpus: one of each kind, made by the encoders of today. So what is kept
 * in test/fuzz/corpus may grow old with a format, and the fuzzer still begins where the format is.
 */
import { encodeIndex } from '../../../src/backup/index-codec.js';
import { encodeManifest, type Manifest } from '../../../src/backup/manifest.js';
import { SlotSet } from '../../../src/backup/slot-set.js';
import type { DekRecord } from '../../../src/keys/dek-record.js';
import { encodeHeaderBackup } from '../../../src/keys/header-backup.js';
import { encodeSuperblock, type Superblock } from '../../../src/keys/superblock.js';
import { encodeKeyring } from '../../../src/kms/local/keyring-codec.js';
import { viewOf } from '../../../src/nbd/wire/bytes.js';
import { Option } from '../../../src/nbd/wire/constants.js';
import {
  encodeInfoRequest,
  encodeMetaRequest,
  encodeOption,
  encodeOptionReply,
} from '../../../src/nbd/wire/option.js';
import { encodeChunkHeader, encodeErrorChunk, encodeSimpleReply } from '../../../src/nbd/wire/reply.js';
import { emptyRequest, encodeRequest } from '../../../src/nbd/wire/request.js';
import { encodeHeader, encodeIndex as encodeSegmentIndex, writeUnmaps } from '../../../src/segment/format.js';
import { encodeRoot, type RunRef } from '../../../src/volume/checkpoint-root.js';
import { RunBatch } from '../../../src/volume/map-file/run-batch.js';
import { writeMapFile } from '../../../src/volume/map-file/writer.js';
import { KEY, UUID } from './oracle.js';

const SALT = new Uint8Array(32).fill(9);
const KEY_URI = 'awskms:///arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab';

const kind = (byte: number, bytes: Uint8Array): Uint8Array => Buffer.concat([Uint8Array.of(byte), bytes]);
const text = (byte: number, value: string): Uint8Array => kind(byte, Buffer.from(value));

function filled(bytes: number, fill: (view: DataView) => void): Uint8Array {
  const out = new Uint8Array(bytes);
  fill(viewOf(out));
  return out;
}

function wire(): Uint8Array[] {
  const cookie = { cookieHigh: 1, cookieLow: 2 };
  return [
    kind(
      0,
      filled(28, (view) =>
        encodeRequest(view, 0, { ...emptyRequest(), type: 1, offset: 2 ** 40, length: 4096 }),
      ),
    ),
    kind(1, encodeOption(7, Uint8Array.of(1, 2))),
    kind(1, encodeOptionReply(7, 3, Uint8Array.of(1, 2))),
    kind(2, encodeInfoRequest({ name: 'db', infos: [0, 3] })),
    kind(3, encodeMetaRequest({ name: 'db', queries: ['base:allocation', 'base:'] })),
    kind(3, encodeMetaRequest({ name: 'db', queries: ['a', 'b', 'c', 'd'] })),
    kind(
      4,
      filled(32, (view) => encodeSimpleReply(view, 0, cookie, 5)),
    ),
    kind(
      4,
      filled(32, (view) => encodeChunkHeader(view, 0, cookie, 2, 1, 12)),
    ),
    kind(
      5,
      filled(20, (view) => view.setUint32(8, 4096)),
    ),
    kind(
      6,
      filled(31, (view) => encodeErrorChunk(view, 0, cookie, 5, Buffer.from('read!'), undefined)).subarray(
        20,
      ),
    ),
    kind(
      6,
      filled(39, (view) => encodeErrorChunk(view, 0, cookie, 5, Buffer.from('read!'), 4096)).subarray(20),
    ),
    text(7, 'aä€😀'),
  ];
}

function handshakes(): Uint8Array[] {
  const named = { name: 'disk', infos: [0, 1, 2, 3] };
  const contexts = { name: 'disk', queries: ['base:allocation', 'base:'] };
  const options: [number, Uint8Array][] = [
    [Option.LIST, new Uint8Array(0)],
    [Option.STARTTLS, new Uint8Array(0)],
    [Option.STRUCTURED_REPLY, new Uint8Array(0)],
    [Option.LIST_META_CONTEXT, encodeMetaRequest(contexts)],
    [Option.SET_META_CONTEXT, encodeMetaRequest(contexts)],
    [Option.INFO, encodeInfoRequest(named)],
    [Option.GO, encodeInfoRequest(named)],
  ];
  const flags = Uint8Array.of(0, 0, 0, 3);
  const encoded = options.map(([option, data]) => encodeOption(option, data));
  const last = [Option.ABORT, Option.EXPORT_NAME].map((option) => encodeOption(option, Buffer.from('disk')));
  const ends = [...encoded, ...last].map((option) => Buffer.concat([flags, option]));
  return [Buffer.concat([flags, ...encoded]), ...ends].flatMap((bytes) =>
    [0, 1, 6].map((how) => kind(how, kind(4, bytes))),
  );
}

function dek(id: number, state: DekRecord['state']): DekRecord {
  const strings = { keyUri: KEY_URI, resolvedKeyId: KEY_URI.slice(10), keyVersion: '1' };
  const bytes = { checkValue: new Uint8Array(16).fill(id), wrapped: new Uint8Array(60).fill(id) };
  return { id, state, exposed: id === 1, createdAt: 1_700_000_000_000, ...strings, ...bytes };
}

function superblocks(): Uint8Array[] {
  const none: Superblock = {
    ...{
      suite: 0,
      activeDek: 0,
      rewriting: false,
      plain: false,
      sizeInRoot: false,
      uuid: UUID,
      generation: 3,
      sizeBytes: 2 ** 30,
    },
    ...{ createdAt: 1_700_000_000_000, deks: [], origins: [] },
  };
  const sealed: Superblock = { ...none, suite: 2, activeDek: 1, deks: [dek(1, 'active')] };
  const rotating: Superblock = { ...sealed, deks: [dek(1, 'active'), dek(2, 'pending')] };
  const converting: Superblock = { ...sealed, activeDek: 0, plain: true, deks: [dek(1, 'pending')] };
  const origins = [{ uuid: SALT.slice(0, 16), lastDek: 1 }];
  const restored: Superblock = {
    ...sealed,
    activeDek: 2,
    origins,
    deks: [dek(1, 'retired'), dek(2, 'active')],
  };
  const rollingBack: Superblock = { ...sealed, sizeInRoot: true };
  const all = [none, sealed, rotating, converting, restored, rollingBack].map((each) =>
    encodeSuperblock(each, () => KEY),
  );
  return [...all, encodeHeaderBackup(all[1])];
}

function run(fileId: number): RunRef {
  return { fileId, bytes: 400, mapEntries: 3, segmentEntries: 2, dekId: 1, salt: SALT };
}

function roots(): Uint8Array[] {
  const plain = {
    ...{
      dekId: 1,
      generation: 7,
      lastSequence: 99,
      nextSegmentId: 5,
      nextMapFileId: 6,
      headId: 4,
      headSlots: 10,
    },
    ...{ preparedId: 0, sizeBytes: 2 ** 30, mappedBlocks: 50, runs: [run(1), run(2)], snapshots: [] },
  };
  const size = { createdAtMs: 1, sizeBytes: 2 ** 30, lastSequence: 9, mappedBlocks: 5, segmentIdEnd: 3 };
  const snapshots = ['monday', 'tuesday'].map((name) => ({ name, ...size, table: run(3), runs: [run(1)] }));
  return [plain, { ...plain, snapshots }].map((root) => encodeRoot(UUID, root, KEY));
}

function segments(): Uint8Array[] {
  const names = {
    dekId: 1,
    originUuid: UUID,
    id: 4,
    previousHeadId: 3,
    salt: SALT,
    createdAtMs: 1,
    slotsMax: 64,
  };
  const header = encodeHeader({ suite: 2, kind: 1, ...names }).bytes;
  const block = new Uint8Array(4096);
  writeUnmaps(block, [
    { sequence: 5, lba: 10, blocks: 3 },
    { sequence: 6, lba: 2 ** 30, blocks: 2 ** 20 },
  ]);
  const slot = Uint8Array.from({ length: 32 }, (_, i) => (i < 12 ? i : 0));
  return [
    kind(0, header.subarray(0, 120)),
    kind(1, encodeSegmentIndex(3, (position) => ({ lba: position + 7, kind: 1 })).bytes),
    kind(2, slot),
    kind(3, block.subarray(0, 72)),
  ];
}

async function mapFiles(): Promise<Uint8Array[]> {
  const identity = { dekId: 1, uuid: UUID, fileId: 5, salt: SALT, key: KEY };
  const segment = {
    kind: 1,
    suite: 2,
    dekId: 1,
    slots: 64,
    segmentId: 4,
    originUuid: UUID,
    salt: SALT,
  } as const;
  const made: Uint8Array[] = [];
  for (const last of [0, 20_000]) {
    const batch = new RunBatch(4);
    batch.push(5, 3, 100);
    batch.push(9, 1, 16_384);
    batch.push(last + 70, 2 ** 20, 2 ** 30);
    const written = new Uint8Array(1024);
    let size = 0;
    const sink = {
      write: async (bytes: Uint8Array, offset: number) => {
        written.set(bytes, offset);
        size = Math.max(size, offset + bytes.length);
      },
    };
    await writeMapFile(
      sink,
      identity,
      [batch],
      [
        { index: 0, segment },
        { index: 7 + last, segment },
      ],
    );
    made.push(written.subarray(0, size));
  }
  return made;
}

function manifests(): Uint8Array[] {
  const full: Manifest = {
    ...{
      suite: 2,
      plain: false,
      dekId: 2,
      uuid: UUID,
      backupUuid: SALT.slice(0, 16),
      createdAt: 1,
      sizeBytes: 2 ** 30,
    },
    ...{ sequence: 9, mappedBlocks: 5, slots: 6, segments: 2, nextIndex: 2, name: 'db', origins: [] },
    index: { bytes: 176, sha256: SALT },
    map: { bytes: 400, sha256: SALT, salt: SALT },
    deks: [dek(1, 'retired'), dek(2, 'active')],
    base: undefined,
  };
  const base = { backupUuid: UUID, digest: SALT, path: '/backups/monday' };
  const none: Manifest = { ...full, suite: 0, dekId: 0, deks: [], origins: [{ uuid: UUID, lastDek: 0 }] };
  return [full, { ...full, base }, none].map((manifest) => encodeManifest(manifest, KEY));
}

function indexes(): Uint8Array[] {
  const slots = new SlotSet();
  slots.add(3, 20);
  slots.add(40, 1);
  const one = { suite: 2, kind: 1, dekId: 1, id: 4, originUuid: UUID, salt: SALT, crc: 5, slots } as const;
  return [
    encodeIndex([{ index: 0, ...one }]),
    encodeIndex([
      { index: 1, ...one },
      { index: 6, ...one },
    ]),
  ];
}

function texts(): Uint8Array[] {
  const id = '1234abcd-12ab-44cd-96ef-1234567890ab';
  const keyring = encodeKeyring([{ name: 'default', id, createdAt: 'now', handle: KEY }]);
  return [
    kind(0, keyring),
    text(1, KEY_URI),
    text(1, 'awskms:///alias/db'),
    text(1, KEY_URI.slice(10)),
    ...['10GiB', '4096', '500ms', '10m'].map((value) => text(2, value)),
    ...['127.0.0.1:10809', '[::1]:0', 'unix:/run/nbd'].map((value) => text(3, value)),
    text(4, `client:${'ab'.repeat(16)}\n#6162:${'cd'.repeat(32)}\n`),
    text(5, 'seg-000000000000001f'),
  ];
}

export async function seeds(): Promise<Record<string, Uint8Array[]>> {
  return {
    ...{
      'nbd-wire': wire(),
      'nbd-handshake': handshakes(),
      superblock: superblocks(),
      checkpoint: roots(),
      segment: segments(),
    },
    ...{ 'map-file': await mapFiles(), manifest: manifests(), 'backup-index': indexes(), texts: texts() },
    'map-entries': [Uint8Array.of(1, 0, 5, 3, 0x65, 1, 1, 0, 0x80, 1, 2, 0x80, 0x80, 2)],
  };
}
