/**
 * The admin API over HTTP. A unix socket is protected by its mode, 0600 from the moment it can be found, and by asking
 * the kernel who connected; a TCP address by TLS and a token, on loopback too, where every local user can connect.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { constants, promises as fs } from 'node:fs';
import type { AddressInfo, Socket } from 'node:net';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import { type SecureContextOptions, Server as TlsServer } from 'node:tls';
import { type FastifyError, type FastifyInstance, fastify } from 'fastify';
import { errnoOf, isSealbdError, messageOf, SealbdError } from '../base/errors.js';
import {
  ADMIN_BODY_BYTES_MAX,
  ADMIN_CONNECTIONS_MAX,
  ADMIN_REQUEST_TIMEOUT_MS,
  HANDSHAKE_TIMEOUT_MS,
} from '../base/limits.js';
import type { Logger } from '../base/log.js';
import { withSocketPath } from '../base/socket-path.js';
import { Admission } from './admission.js';
import type { AdminBackend } from './backend.js';
import { errorBody, statusOf } from './errors.js';
import { addRoutes } from './routes.js';

/** TLS of a TCP address. */
export interface AdminTls {
  readonly context: SecureContextOptions;
  /** Clients need a certificate beside the token. */
  readonly verifyClients: boolean;
}

/** The user behind the other end of a unix socket, by its descriptor; negative where that is not known. */
export type PeerUid = (fd: number) => number;

export interface AdminListener {
  readonly address: string;
  /** For connections to come. Nothing where the address has no TLS. */
  replaceTls(context: SecureContextOptions): void;
  close(): Promise<void>;
}

/** Listens on a unix socket for the daemon's user and root alone. CONFLICT where another server has it. */
export async function listenUnix(
  path: string,
  peerUid: PeerUid,
  backend: AdminBackend,
  log: Logger,
): Promise<AdminListener> {
  await refuseIfTaken(path);
  const app = makeApp(backend, log, undefined, undefined);
  app.server.on('connection', (socket) => admit(socket, peerUid, log));
  // Bound where nobody else can enter, given its mode there, then moved into place.
  const staging = await privatePlace(dirname(path));
  const temporary = join(staging, 'admin-listener.sock');
  try {
    await withSocketPath(temporary, (short) => app.listen({ path: short }));
    await fs.chmod(temporary, 0o600);
    await fs.rename(temporary, path);
  } catch (error) {
    await app.close();
    throw new SealbdError('FAILED', `cannot listen on unix:${path}: ${messageOf(error)}`, { cause: error });
  } finally {
    await fs.rm(staging === dirname(path) ? temporary : staging, { recursive: true, force: true });
  }
  const { ino } = await fs.lstat(path);
  return {
    address: `unix:${path}`,
    replaceTls: () => undefined,
    close: async () => {
      await unlinkOwn(path, ino);
      await app.close();
    },
  };
}

/** The mode of the file keeps others out; this does too where somebody has changed it. */
function admit(socket: Socket, peerUid: PeerUid, log: Logger): void {
  // Node has no other name for it. Without one nobody is admitted.
  const { _handle: handle } = socket as Socket & { _handle?: { fd?: number } };
  const uid = handle?.fd === undefined || handle.fd < 0 ? -1 : peerUid(handle.fd);
  if (uid === 0 || (uid >= 0 && uid === process.geteuid?.())) return;
  log.warn({ uid }, 'another user connected to the admin socket, and was refused');
  socket.destroy();
}

/** A new directory beside the socket; where a full disk has no room for one, `parent` itself, if it is private. */
async function privatePlace(parent: string): Promise<string> {
  try {
    return await fs.mkdtemp(join(parent, '.admin-'));
  } catch (error) {
    const full = errnoOf(error) === 'ENOSPC' || errnoOf(error) === 'EDQUOT';
    if (!full || ((await fs.stat(parent)).mode & 0o077) !== 0) throw error;
    await fs.rm(join(parent, 'admin-listener.sock'), { force: true });
    return parent;
  }
}

/** Listens on TCP for requests that carry `Authorization: Bearer TOKEN`. */
export async function listenTcp(
  host: string,
  port: number,
  token: string,
  tls: AdminTls | undefined,
  backend: AdminBackend,
  log: Logger,
): Promise<AdminListener> {
  const app = makeApp(backend, log, token, tls);
  try {
    await app.listen({ host, port });
  } catch (error) {
    await app.close();
    throw new SealbdError('FAILED', `cannot listen on ${host}:${port}: ${messageOf(error)}`, {
      cause: error,
    });
  }
  const bound = app.server.address() as AddressInfo;
  const shown = bound.family === 'IPv6' ? `[${bound.address}]` : bound.address;
  const { server } = app;
  return {
    address: `${tls === undefined ? 'http' : 'https'}://${shown}:${bound.port}`,
    replaceTls: (context) => {
      if (server instanceof TlsServer) server.setSecureContext(context);
    },
    close: () => app.close(),
  };
}

function makeApp(
  backend: AdminBackend,
  log: Logger,
  token: string | undefined,
  tls: AdminTls | undefined,
): FastifyInstance {
  const app = fastify({
    ...(tls !== undefined && {
      https: {
        ...tls.context,
        requestCert: tls.verifyClients,
        rejectUnauthorized: tls.verifyClients,
        handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
      },
    }),
    logger: false,
    bodyLimit: ADMIN_BODY_BYTES_MAX,
    requestTimeout: ADMIN_REQUEST_TIMEOUT_MS,
    connectionTimeout: 0,
    forceCloseConnections: true,
  });
  app.server.maxConnections = ADMIN_CONNECTIONS_MAX;
  if (token !== undefined) {
    const admission = new Admission();
    app.server.on('connection', (socket: Socket) => admission.enter(socket));
    app.server.on('secureConnection', (socket: Socket) => admission.secure(socket));
    app.addHook('onRequest', async (request, reply) => {
      if (tokenMatches(request.headers.authorization, token)) {
        admission.prove(request.raw.socket);
        return;
      }
      log.warn({ from: request.ip, url: request.routeOptions.url }, 'admin request without the right token');
      await reply
        .code(401)
        .header('connection', 'close')
        .send(errorBody('EPERM', 'the admin address needs the header Authorization: Bearer TOKEN'));
    });
  }
  app.setErrorHandler<FastifyError>((error, request, reply) => {
    const { code, message } = classify(error);
    if (code === 'FAILED')
      log.error({ url: request.routeOptions.url, reason: message }, 'admin request failed');
    return reply.code(statusOf(code)).send(errorBody(code, message));
  });
  app.setNotFoundHandler((_request, reply) => reply.code(404).send(errorBody('NOT_FOUND', 'no such route')));
  addRoutes(app, backend);
  return app;
}

/** What Fastify itself refuses (length, JSON, content type) is the caller's mistake. */
function classify(error: FastifyError) {
  if (isSealbdError(error)) return error;
  const usage = error.statusCode !== undefined && error.statusCode >= 400 && error.statusCode < 500;
  return new SealbdError(usage ? 'USAGE' : 'FAILED', error.message, { cause: error });
}

/** Compares digests, so that neither length nor prefix can be timed. */
function tokenMatches(header: string | undefined, token: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(header ?? ''), digest(`Bearer ${token}`));
}

async function refuseIfTaken(path: string): Promise<void> {
  try {
    const stat = await fs.lstat(path);
    if ((stat.mode & constants.S_IFMT) !== constants.S_IFSOCK) {
      throw new SealbdError('CONFLICT', `${path} exists and is no socket`);
    }
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return;
    throw error;
  }
  const answers = await withSocketPath(path, (short) => {
    return new Promise<boolean>((resolve) => {
      const socket = connect(short);
      socket.once('connect', () => {
        socket.destroy();
        resolve(true);
      });
      socket.once('error', () => resolve(false));
    });
  });
  if (answers) throw new SealbdError('CONFLICT', `another server listens on ${path}`);
}

async function unlinkOwn(path: string, ino: number): Promise<void> {
  try {
    if ((await fs.lstat(path)).ino === ino) await fs.unlink(path);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
  }
}
