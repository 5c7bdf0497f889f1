/**
 * The server's side of TLS: takes a connection over from the addon, does the handshake with Node's `tls`, and says
 * who the peer proved to be. With certificates that can be nobody, where clients are not verified; with pre-shared keys
 * it is always somebody.
 */

import { constants, createHmac, randomBytes } from 'node:crypto';
import { closeSync } from 'node:fs';
import { Socket } from 'node:net';
import tls, { type SecureContextOptions, type TLSSocket } from 'node:tls';
import { messageOf, SealbdError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import type { ChunkPool } from './chunk-pool.js';
import type { TlsUpgrade } from './connection-host.js';
import { describeIdentity, type PeerIdentity } from './peer-identity.js';
import { TlsTransport } from './tls-transport.js';
import type { Transport } from './transport.js';

export type TlsVersion = 'TLSv1.2' | 'TLSv1.3';

/** PEM text throughout. */
export interface CertificateCredentials {
  readonly kind: 'certificates';
  readonly cert: string;
  readonly key: string;
  /** Whose certificates of clients are taken. */
  readonly ca: string;
  readonly crl: string | undefined;
  readonly verifyClients: boolean;
}

export interface PskCredentials {
  readonly kind: 'psk';
  readonly keys: ReadonlyMap<string, Uint8Array>;
}

export type TlsCredentials = CertificateCredentials | PskCredentials;

const CIPHERS_TLS13 = 'TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256';
/** Of TLS 1.2 what is authenticated and forward secret. */
const CIPHERS_CERTIFICATES = `${CIPHERS_TLS13}:ECDHE+AESGCM:ECDHE+CHACHA20:!PSK:!aNULL`;
/** OpenSSL has no ECDHE-PSK with AES-GCM. Those with DHE would go by a group of 1024 bits, or one that costs too much. */
const CIPHERS_PSK = `${CIPHERS_TLS13}:ECDHE-PSK-CHACHA20-POLY1305`;
/**
 * Of both versions. Not the finite-field groups that OpenSSL would take too: a handshake in ffdhe8192 costs the one thread 140 ms,
 * and who asks for it nothing (CVE-2002-20001).
 */
const GROUPS = 'X25519:prime256v1:secp384r1';
/** SSL_OP_CLEANSE_PLAINTEXT of OpenSSL 3, which Node has no name for: wipes each record once it was read. */
const CLEANSE_PLAINTEXT = 0x2;
/** No sessions are resumed: who a client is, is proved each time. */
const SECURE_OPTIONS = constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION | CLEANSE_PLAINTEXT;

/** For Node. Throws FAILED where the credentials cannot be used. */
export function secureContextOptions(
  credentials: TlsCredentials,
  minVersion: TlsVersion,
): SecureContextOptions {
  const common = { minVersion, secureOptions: SECURE_OPTIONS, honorCipherOrder: true, ecdhCurve: GROUPS };
  const options: SecureContextOptions =
    credentials.kind === 'psk'
      ? { ...common, ciphers: CIPHERS_PSK }
      : {
          ...common,
          ciphers: CIPHERS_CERTIFICATES,
          cert: credentials.cert,
          key: credentials.key,
          ca: credentials.ca,
          crl: credentials.crl,
        };
  try {
    // A server takes options over before it looks at them.
    tls.createSecureContext(options);
  } catch (error) {
    throw new SealbdError('FAILED', `TLS: ${messageOf(error)}`, { cause: error });
  }
  return options;
}

export interface TlsServerOptions {
  /** Clients that do not start TLS are refused. */
  readonly required: boolean;
  readonly minVersion: TlsVersion;
  readonly credentials: TlsCredentials;
  /** For the handshake of TLS alone: what a connection has for everything (`NbdLimits.handshakeMs`) ends sooner. */
  readonly handshakeMs: number;
  readonly log: Logger;
}

export class TlsServer implements TlsUpgrade {
  readonly required: boolean;
  readonly #minVersion: TlsVersion;
  readonly #log: Logger;
  readonly #server: tls.Server;
  readonly #transports = new WeakMap<object, TlsTransport>();
  readonly #pskNames = new WeakMap<TLSSocket, string>();
  /** Of the keys that names have which are not known. */
  readonly #secret = randomBytes(32);
  #credentials: TlsCredentials;

  /** Throws FAILED where the credentials cannot be used. */
  constructor({ required, minVersion, credentials, handshakeMs, log }: TlsServerOptions) {
    this.required = required;
    this.#minVersion = minVersion;
    this.#log = log;
    this.#credentials = credentials;
    const verify = credentials.kind === 'certificates' && credentials.verifyClients;
    this.#server = tls.createServer({
      ...secureContextOptions(credentials, this.#minVersion),
      requestCert: verify,
      rejectUnauthorized: verify,
      handshakeTimeout: handshakeMs,
      ...(credentials.kind === 'psk' && {
        pskCallback: (socket: TLSSocket, name: string) => this.#pskOf(socket, name),
      }),
    });
    this.#server.on('secureConnection', (socket) => this.#secured(socket));
    this.#server.on('tlsClientError', (error, socket) => this.#refused(error, socket));
  }

  /**
   * For handshakes from now on; connections that stand go on. The kind of credentials, and whether clients are verified,
   * stay as they were. Throws FAILED, and changes nothing, where they cannot be used.
   */
  replace(credentials: TlsCredentials): void {
    if (credentials.kind !== this.#credentials.kind) throw new Error('the kind of credentials is fixed');
    this.#server.setSecureContext(secureContextOptions(credentials, this.#minVersion));
    this.#credentials = credentials;
  }

  upgrade(transport: Transport, pool: ChunkPool): Transport {
    const raw = socketOf(transport.release());
    const secure = new TlsTransport(raw, transport.peer, pool);
    this.#transports.set(raw, secure);
    raw.on('error', () => secure.failed());
    raw.on('close', () => secure.failed());
    this.#server.emit('connection', raw);
    return secure;
  }

  #pskOf(socket: TLSSocket, name: string): Uint8Array | null {
    if (this.#credentials.kind !== 'psk') return null;
    const key = this.#credentials.keys.get(name);
    if (key === undefined) {
      this.#log.info({ peer: this.#transportOf(socket)?.peer, name }, 'no pre-shared key has the name');
      // A key that nobody knows: the handshake ends as with a wrong one, and does not tell which names there are.
      return createHmac('sha256', this.#secret).update(name).digest();
    }
    this.#pskNames.set(socket, name);
    return key;
  }

  #secured(socket: TLSSocket): void {
    const transport = this.#transportOf(socket);
    const identity = this.#identityOf(socket);
    if (transport === undefined || identity === 'refused') {
      this.#log.warn({ peer: transport?.peer }, 'TLS came up without an identity, which must not be');
      socket.destroy();
      return;
    }
    const shown = identity === undefined ? 'not verified' : describeIdentity(identity);
    const protocol = socket.getProtocol();
    this.#log.debug(
      { peer: transport.peer, protocol, cipher: socket.getCipher().standardName, identity: shown },
      'TLS is up',
    );
    transport.secured(socket, identity);
  }

  /** Node has judged the certificate; that it did, and that there is one, is looked at once more. */
  #identityOf(socket: TLSSocket): PeerIdentity | undefined | 'refused' {
    if (this.#credentials.kind === 'psk') {
      const name = this.#pskNames.get(socket);
      return name === undefined ? 'refused' : { kind: 'psk', name };
    }
    if (!this.#credentials.verifyClients) return undefined;
    // `getPeerX509Certificate` of Node 20 never gives the certificate back: some KiB for each connection.
    const certificate: Partial<tls.PeerCertificate> = socket.getPeerCertificate();
    if (!socket.authorized || certificate.raw === undefined || certificate.subject === undefined)
      return 'refused';
    const subject = new Map<string, string[]>();
    for (const [name, value] of Object.entries(certificate.subject)) {
      if (value !== undefined) subject.set(name, [value].flat());
    }
    return { kind: 'certificate', subject };
  }

  #refused(error: Error, socket: TLSSocket): void {
    const transport = this.#transportOf(socket);
    const reason = socket.authorizationError ?? error;
    this.#log.info(
      { peer: transport?.peer, reason: typeof reason === 'string' ? reason : messageOf(reason) },
      'a TLS handshake failed',
    );
    socket.destroy();
    transport?.failed();
  }

  /** Node gives the socket that it made, not the one that it was given; that one it keeps there. */
  #transportOf(socket: TLSSocket): TlsTransport | undefined {
    const { _parent: raw } = socket as TLSSocket & { _parent?: object };
    return raw === undefined ? undefined : this.#transports.get(raw);
  }
}

/** Takes the descriptor over, whatever happens. */
function socketOf(fd: number): Socket {
  try {
    return new Socket({ fd, readable: true, writable: true });
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}
