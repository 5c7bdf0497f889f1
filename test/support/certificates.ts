/** Certificates for tests: by openssl, and by the authority of `sealbd tls init`. */
import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import { join } from 'node:path';
import * as x509 from '@peculiar/x509';
import { Authority, type CertificateUse, type PemPair } from '../../src/cli/tls/authority.js';
import { mustRun } from './programs.js';

/** Files of a key and a certificate for 127.0.0.1 that nobody else signed. */
export async function selfSignedCertificate(directory: string): Promise<{ key: string; cert: string }> {
  const [key, cert] = [join(directory, 'key.pem'), join(directory, 'cert.pem')];
  const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
  const names = ['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1'];
  await mustRun('openssl', ['req', '-x509', ...kind, '-keyout', key, '-out', cert, ...names]);
  return { key, cert };
}

const DAY_MS = 86_400_000;

/** Certificates of two authorities: one that a server trusts, and another one. */
export interface TestCertificates {
  readonly ca: string;
  readonly server: PemPair;
  /** CN=alice */
  readonly client: PemPair;
  readonly expired: PemPair;
  readonly otherCa: string;
  /** CN=alice too, but signed by the other authority. */
  readonly stranger: PemPair;
  issue(use: CertificateUse): Promise<PemPair>;
  /** The list of revocations of the authority that is trusted, with nothing on it. */
  revocations(): Promise<string>;
}

export async function testCertificates(nowMs: number = Date.now()): Promise<TestCertificates> {
  const validity = { nowMs, days: 2 };
  const [own, other] = await Promise.all(
    ['test CA', 'other CA'].map((name) => Authority.create(name, validity)),
  );
  const [authority, otherAuthority] = await Promise.all([own, other].map((pair) => Authority.load(pair)));
  const alice: CertificateUse = { kind: 'client', name: 'alice' };
  return {
    ca: own.cert,
    server: await authority.issue({ kind: 'server', hosts: ['localhost', '127.0.0.1'] }, validity),
    client: await authority.issue(alice, validity),
    expired: await authority.issue(alice, { nowMs: nowMs - 2 * DAY_MS, days: 1 }),
    otherCa: other.cert,
    stranger: await otherAuthority.issue(alice, validity),
    issue: (use) => authority.issue(use, validity),
    revocations: () => emptyList(own, nowMs),
  };
}

async function emptyList({ cert, key }: PemPair, nowMs: number): Promise<string> {
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const [der] = x509.PemConverter.decode(key);
  const list = await x509.X509CrlGenerator.create({
    issuer: new x509.X509Certificate(cert).subject,
    thisUpdate: new Date(nowMs - DAY_MS),
    nextUpdate: new Date(nowMs + DAY_MS),
    signingAlgorithm: algorithm,
    signingKey: await webcrypto.subtle.importKey('pkcs8', der, algorithm, false, ['sign']),
  });
  return x509.PemConverter.encode(list.rawData, 'X509 CRL');
}
