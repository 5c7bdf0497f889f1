/** Certificates for tests, by openssl. */
import { join } from 'node:path';
import { mustRun } from './programs.js';

/** Files of a key and a certificate for 127.0.0.1 that nobody else signed. */
export async function selfSignedCertificate(directory: string): Promise<{ key: string; cert: string }> {
  const [key, cert] = [join(directory, 'key.pem'), join(directory, 'cert.pem')];
  const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
  const names = ['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1'];
  await mustRun('openssl', ['req', '-x509', ...kind, '-keyout', key, '-out', cert, ...names]);
  return { key, cert };
}
