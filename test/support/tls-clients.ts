/** How libnbd and QEMU are told about TLS. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Files of a client: a directory of certificates, or a file of pre-shared keys and the name to use. */
export type ClientSecrets =
  | { readonly kind: 'certificates'; readonly directory: string }
  | { readonly kind: 'psk'; readonly directory: string; readonly user: string };

export type TlsVersion = 'TLSv1.2' | 'TLSv1.3';

/** The file of pre-shared keys has the name that QEMU looks for. */
export const PSK_FILE = 'keys.psk';

/** `address` is HOST:PORT. libnbd looks at the name that the certificate is for, QEMU too. */
export function libnbdUri(address: string, exportName: string, secrets: ClientSecrets): string {
  const where = `nbds://${secrets.kind === 'psk' ? `${secrets.user}@` : ''}${address}/${exportName}`;
  return secrets.kind === 'psk'
    ? `${where}?tls-psk-file=${join(secrets.directory, PSK_FILE)}`
    : `${where}?tls-certificates=${secrets.directory}`;
}

/** Environment that holds programs of GnuTLS to one version. */
export function gnutlsVersion(directory: string, version: TlsVersion): Record<string, string> {
  const path = join(directory, `gnutls-${version}`);
  const others = ['tls1.0', 'tls1.1', version === 'TLSv1.2' ? 'tls1.3' : 'tls1.2'];
  const disabled = others.map((other) => `disabled-version = ${other}\n`);
  writeFileSync(path, `[overrides]\n${disabled.join('')}`);
  // nbdsh is a script of Debian's python, which must come before any other.
  return { GNUTLS_SYSTEM_PRIORITY_FILE: path, PATH: `/usr/bin:/bin:${process.env.PATH ?? ''}` };
}

/** What stands before `--image-opts IMAGE`, and the image. */
export function qemuArguments(
  address: string,
  exportName: string,
  secrets: ClientSecrets,
): { readonly objects: readonly string[]; readonly image: string } {
  const [host, port] = address.split(':');
  const kind = secrets.kind === 'psk' ? `tls-creds-psk,username=${secrets.user}` : 'tls-creds-x509';
  const object = `${kind},id=tls0,dir=${secrets.directory},endpoint=client`;
  const server = `server.type=inet,server.host=${host},server.port=${port}`;
  return {
    objects: ['--object', object],
    image: `driver=nbd,${server},export=${exportName},tls-creds=tls0`,
  };
}
