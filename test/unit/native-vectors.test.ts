import { describe, expect, test } from 'vitest';
import { addon } from '../../src/native/addon.js';
import { KERNELS } from '../support/native-kernels.js';
import { describeVectors, hex, parseRecords } from '../vectors/load.js';

const { primitives } = addon;

describe.each(KERNELS)('SP 800-38A CTR-AES256 on %s', (kernel) => {
  const key = hex('603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4');
  const counter = hex('f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff');
  const plain = hex(
    '6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51' +
      '30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710',
  );
  const cipher = hex(
    '601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5' +
      '2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6',
  );

  test.each([
    ['F.5.5 encrypts', plain, cipher],
    ['F.5.6 decrypts', cipher, plain],
  ])('%s', (_name, from, to) => {
    const dst = Buffer.alloc(from.length);
    primitives.ctr(kernel, key, counter, from, dst);
    expect(dst).toEqual(to);
  });
});

describeVectors('CAVP AES-256 known answers, as CTR', 'cavp_aes_256_ctr.txt', (text) => {
  const records = parseRecords(text);
  test('the file holds what we think', () => expect(records.length).toBeGreaterThan(800));
  test.each(KERNELS)('%s', (kernel) => {
    for (const record of records) {
      const from = hex(record.get('Plaintext')!);
      const dst = Buffer.alloc(from.length);
      primitives.ctr(kernel, hex(record.get('Key')!), hex(record.get('IV')!), from, dst);
      expect(dst.toString('hex')).toBe(record.get('Ciphertext'));
    }
  });
});

describeVectors('CAVP CMAC-AES256', 'cavp_aes256_cmac.txt', (text) => {
  const records = parseRecords(text).filter((record) => record.has('Mac'));
  test('the file holds what we think', () => {
    expect(records.length).toBeGreaterThan(200);
    expect(records.some((record) => record.get('Result')!.startsWith('P'))).toBe(true);
    expect(records.some((record) => record.get('Result')!.startsWith('F'))).toBe(true);
  });
  test.each(KERNELS)('%s', (kernel) => {
    for (const record of records) {
      const message = hex(record.get('Msg')!).subarray(0, Number(record.get('Mlen')));
      const mac = primitives.cmac(kernel, hex(record.get('Key')!), message);
      const same = mac.subarray(0, Number(record.get('Tlen'))).toString('hex') === record.get('Mac');
      expect(same, `Count = ${record.get('Count')}`).toBe(record.get('Result')!.startsWith('P'));
    }
  });
});

interface KdfVector {
  prf: string;
  counterBits: number;
  lengthBits: number;
  ki: string;
  fixedInput: string;
  ko: string;
}

describeVectors('CAVP SP 800-108 KDF, CMAC-AES256, 32-bit counter', 'cavp_kbkdf_ctr_cmac.json', (text) => {
  const { tests } = JSON.parse(text) as { tests: KdfVector[] };
  const ours = tests.filter((row) => row.prf === 'CMAC_AES256' && row.counterBits === 32);
  test('the file holds what we think', () => expect(ours.length).toBeGreaterThan(0));
  test.each(KERNELS)('%s', (kernel) => {
    for (const row of ours) {
      const out = primitives.kdf(kernel, hex(row.ki), hex(row.fixedInput), row.lengthBits);
      expect(out.toString('hex')).toBe(row.ko);
    }
  });
});

interface GcmVector {
  tcId: number;
  key: string;
  iv: string;
  aad: string;
  msg: string;
  ct: string;
  tag: string;
  result: 'valid' | 'invalid';
}

interface GcmGroup {
  keySize: number;
  ivSize: number;
  tagSize: number;
  tests: GcmVector[];
}

describeVectors('Wycheproof AES-GCM, 256-bit key, 96-bit IV', 'wycheproof_aes_gcm.json', (text) => {
  const { testGroups } = JSON.parse(text) as { testGroups: GcmGroup[] };
  const vectors = testGroups
    .filter((group) => group.keySize === 256 && group.ivSize === 96 && group.tagSize === 128)
    .flatMap((group) => group.tests);

  test('the file holds what we think', () => {
    expect(vectors.length).toBeGreaterThan(50);
    expect(vectors.some((vector) => vector.result === 'invalid')).toBe(true);
  });
  test.each(KERNELS)('%s opens what is valid and nothing else', (kernel) => {
    for (const vector of vectors) {
      const { key, iv, aad, msg, ct, tag } = vector;
      const plain = Buffer.alloc(ct.length / 2, 0xaa);
      const opened = primitives.gcmOpen(kernel, hex(key), hex(iv), hex(aad), hex(tag), hex(ct), plain);
      expect(opened, `tcId ${vector.tcId}`).toBe(vector.result === 'valid');
      expect(plain).toEqual(opened ? hex(msg) : Buffer.alloc(plain.length));
    }
  });
  test.each(KERNELS)('%s seals to the valid ones', (kernel) => {
    for (const vector of vectors.filter((each) => each.result === 'valid')) {
      const { key, iv, aad, msg, ct, tag } = vector;
      const cipher = Buffer.alloc(msg.length / 2);
      const made = primitives.gcmSeal(kernel, hex(key), hex(iv), hex(aad), hex(msg), cipher);
      expect(cipher.toString('hex')).toBe(ct);
      expect(made.toString('hex')).toBe(tag);
    }
  });
});

interface CmacGroup {
  keySize: number;
  tagSize: number;
  tests: { tcId: number; key: string; msg: string; tag: string; result: 'valid' | 'invalid' }[];
}

describeVectors('Wycheproof AES-CMAC, 256-bit key', 'wycheproof_aes_cmac.json', (text) => {
  const { testGroups } = JSON.parse(text) as { testGroups: CmacGroup[] };
  const vectors = testGroups
    .filter((group) => group.keySize === 256 && group.tagSize === 128)
    .flatMap((group) => group.tests);

  test('the file holds what we think', () => expect(vectors.length).toBeGreaterThan(50));
  test.each(KERNELS)('%s', (kernel) => {
    for (const vector of vectors) {
      const same = primitives.cmac(kernel, hex(vector.key), hex(vector.msg)).toString('hex') === vector.tag;
      expect(same, `tcId ${vector.tcId}`).toBe(vector.result === 'valid');
    }
  });
});
