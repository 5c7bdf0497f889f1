/**
 * A small certificate authority: makes and signs what NBD over TLS needs. P-256 throughout, keys as PKCS #8, all as PEM
 * text. The end certificates have no key usage: QEMU complains about each value of it that suits a key for signatures.
 */
import 'reflect-metadata';
import { randomBytes, webcrypto } from 'node:crypto';
import { isIP } from 'node:net';
import * as x509 from '@peculiar/x509';
import { messageOf, SealbdError } from '../../base/errors.js';

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256' };
const SIGNING = { name: 'ECDSA', hash: 'SHA-256' };
const DAY_MS = 86_400_000;
/** Clocks differ: valid from a little before now. */
const BACKDATE_MS = 5 * 60_000;
const SERIAL_BYTES = 16;

export interface PemPair {
  readonly cert: string;
  readonly key: string;
}

/** What a certificate is for, and so which names it carries. */
export type CertificateUse =
  /** Host names and addresses under which clients connect; the first one is the subject's CN. */
  | { readonly kind: 'server'; readonly hosts: readonly string[] }
  /** The subject's CN, which access rules name. */
  | { readonly kind: 'client'; readonly name: string };

export interface Validity {
  readonly nowMs: number;
  readonly days: number;
}

export class Authority {
  readonly #certificate: x509.X509Certificate;
  readonly #key: webcrypto.CryptoKey;

  private constructor(certificate: x509.X509Certificate, key: webcrypto.CryptoKey) {
    this.#certificate = certificate;
    this.#key = key;
  }

  /** The files of a new one. */
  static async create(name: string, validity: Validity): Promise<PemPair> {
    const keys = await generate();
    const certificate = await x509.X509CertificateGenerator.createSelfSigned({
      ...terms(validity),
      name: commonName(name),
      keys,
      extensions: [
        new x509.BasicConstraintsExtension(true, 0, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
        await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      ],
    });
    return { cert: pem(certificate), key: await exportKey(keys.privateKey) };
  }

  /** From its two PEM files. USAGE where they are no certificate and key that belong together. */
  static async load({ cert, key }: PemPair): Promise<Authority> {
    try {
      const certificate = new x509.X509Certificate(cert);
      const [der] = x509.PemConverter.decode(key);
      const privateKey = await webcrypto.subtle.importKey('pkcs8', der, ALGORITHM, true, ['sign']);
      const authority = new Authority(certificate, privateKey);
      await authority.#assertOwnKey();
      return authority;
    } catch (error) {
      throw new SealbdError('USAGE', `not a certificate authority: ${messageOf(error)}`, { cause: error });
    }
  }

  async issue(use: CertificateUse, validity: Validity): Promise<PemPair> {
    const keys = await generate();
    const server = use.kind === 'server';
    const names = server ? use.hosts.map((host): x509.JsonGeneralName => generalName(host)) : [];
    const purpose = server ? x509.ExtendedKeyUsage.serverAuth : x509.ExtendedKeyUsage.clientAuth;
    const certificate = await x509.X509CertificateGenerator.create({
      ...terms(validity),
      subject: commonName(server ? use.hosts[0] : use.name),
      issuer: this.#certificate.subjectName,
      publicKey: keys.publicKey,
      signingKey: this.#key,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.ExtendedKeyUsageExtension([purpose]),
        ...(server ? [new x509.SubjectAlternativeNameExtension(names)] : []),
        await x509.AuthorityKeyIdentifierExtension.create(this.#certificate),
        await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      ],
    });
    return { cert: pem(certificate), key: await exportKey(keys.privateKey) };
  }

  /** What it signs must verify under its certificate. */
  async #assertOwnKey(): Promise<void> {
    const probe = randomBytes(32);
    const signature = await webcrypto.subtle.sign(SIGNING, this.#key, probe);
    const publicKey = await this.#certificate.publicKey.export(ALGORITHM, ['verify']);
    const own = await webcrypto.subtle.verify(SIGNING, publicKey, signature, probe);
    if (!own) throw new Error('the key is not that of the certificate');
  }
}

/** What fits into a CN. USAGE where it does not. */
export function parseCommonName(text: string): string {
  if (/^[\x20-\x7e]{1,64}$/.test(text)) return text;
  throw new SealbdError('USAGE', `client name: "${text}" is not of 1 to 64 printable ASCII characters`);
}

function generate(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
}

function terms({ nowMs, days }: Validity) {
  return {
    // Positive, as serial numbers must be.
    serialNumber: `01${randomBytes(SERIAL_BYTES - 1).toString('hex')}`,
    notBefore: new Date(nowMs - BACKDATE_MS),
    notAfter: new Date(nowMs + days * DAY_MS),
    signingAlgorithm: SIGNING,
  };
}

/** Not as text: there commas and the like would have to be escaped. */
function commonName(name: string): x509.Name {
  return new x509.Name([{ CN: [{ utf8String: name }] }]);
}

function generalName(host: string): x509.JsonGeneralName {
  return { type: isIP(host) === 0 ? 'dns' : 'ip', value: host };
}

function pem(certificate: x509.X509Certificate): string {
  return `${certificate.toString('pem')}\n`;
}

async function exportKey(key: webcrypto.CryptoKey): Promise<string> {
  const der = await webcrypto.subtle.exportKey('pkcs8', key);
  return `${x509.PemConverter.encode(der, 'PRIVATE KEY')}\n`;
}
