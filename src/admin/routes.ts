/** The admin API, version 1. Bodies in and out pass the schemas of schemas.ts. */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { SealbdError } from '../base/errors.js';
import type { AdminBackend, Caller } from './backend.js';
import {
  backUpVolumeSchema,
  CLI_AGENT,
  cloneSnapshotSchema,
  createSnapshotSchema,
  createVolumeSchema,
  encryptVolumeSchema,
  forgetBackupsSchema,
  forgottenBackupsSchema,
  headerFileSchema,
  importedKeySchema,
  importKeySchema,
  jobInfoSchema,
  keyChangeSchema,
  keyFileSchema,
  keyReportSchema,
  keySetSchema,
  keyStatusSchema,
  keyUriSchema,
  keyUsageSchema,
  nameSchema,
  noBodySchema,
  passphraseSchema,
  resizeVolumeSchema,
  restoreHeaderSchema,
  restoreVolumeSchema,
  rotatedSchema,
  rotateKeySchema,
  setKeySchema,
  snapshotInfoSchema,
  statusSchema,
  usageOfSchema,
  volumeInfoSchema,
} from './schemas.js';

interface Route<Body extends z.ZodType, Answer extends z.ZodType> {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  readonly url: string;
  readonly body: Body;
  readonly answer: Answer;
  run(
    body: z.output<Body>,
    id: string,
    caller: Caller,
    snapshot: string,
  ): Promise<z.input<Answer>> | z.input<Answer>;
}

const DONE = z.object({});
type Add = <Body extends z.ZodType, Answer extends z.ZodType>(route: Route<Body, Answer>) => void;

export function addRoutes(app: FastifyInstance, backend: AdminBackend): void {
  const add: Add = (route) => {
    app.route({
      method: route.method,
      url: route.url,
      handler: async (request) =>
        route.answer.parse(
          await route.run(
            bodyOf(route.body, request),
            nameOf(request, 'id'),
            callerOf(request),
            nameOf(request, 'snapshot'),
          ),
        ),
    });
  };
  add({
    method: 'GET',
    url: '/v1/status',
    body: noBodySchema,
    answer: statusSchema,
    run: () => backend.status(),
  });
  addVolumeRoutes(add, backend);
  addSnapshotRoutes(add, backend);
  addBackupRoutes(add, backend);
  addKeyRoutes(add, backend);
  addJobRoutes(add, backend);
  app.get('/metrics', async (_request, reply) => {
    const { contentType, text } = await backend.metrics();
    return reply.type(contentType).send(text);
  });
}

function addVolumeRoutes(add: Add, backend: AdminBackend): void {
  const none = noBodySchema;
  const volume = volumeInfoSchema;
  const base = '/v1/volumes';
  const one = `${base}/:id`;
  add({ method: 'GET', url: base, body: none, answer: z.array(volume), run: () => backend.listVolumes() });
  add({
    method: 'POST',
    url: base,
    body: createVolumeSchema,
    answer: volume,
    run: (body, _, caller) => backend.createVolume(body, caller),
  });
  add({ method: 'GET', url: one, body: none, answer: volume, run: (_, name) => backend.volumeInfo(name) });
  add({
    method: 'DELETE',
    url: one,
    body: none,
    answer: DONE,
    run: async (_, name, caller) => {
      await backend.deleteVolume(name, caller);
      return {};
    },
  });
  add({
    method: 'POST',
    url: `${one}/resize`,
    body: resizeVolumeSchema,
    answer: volume,
    run: (body, name, caller) => backend.resizeVolume(name, body.sizeBytes, body.shrink, caller),
  });
  add({
    method: 'POST',
    url: `${one}/start`,
    body: none,
    answer: volume,
    run: (_, name, caller) => backend.startVolume(name, caller),
  });
  add({
    method: 'POST',
    url: `${one}/stop`,
    body: none,
    answer: volume,
    run: (_, name, caller) => backend.stopVolume(name, caller),
  });
  add({
    method: 'POST',
    url: `${one}/verify`,
    body: none,
    answer: jobInfoSchema,
    run: (_, name) => backend.verifyVolume(name),
  });
  add({
    method: 'POST',
    url: `${one}/encrypt`,
    body: encryptVolumeSchema,
    answer: rotatedSchema,
    run: (body, name, caller) => backend.encryptVolume(name, body, caller),
  });
  add({
    method: 'GET',
    url: `${one}/header`,
    body: none,
    answer: headerFileSchema,
    run: async (_, name) => ({ file: Buffer.from(await backend.backUpHeader(name)).toString('base64') }),
  });
  add({
    method: 'PUT',
    url: `${one}/header`,
    body: restoreHeaderSchema,
    answer: volume,
    run: (body, name, caller) =>
      backend.restoreHeader(name, Buffer.from(body.file, 'base64'), body.force, caller),
  });
}

function addSnapshotRoutes(add: Add, backend: AdminBackend): void {
  const none = noBodySchema;
  const all = '/v1/volumes/:id/snapshots';
  const one = `${all}/:snapshot`;
  add({
    method: 'GET',
    url: all,
    body: none,
    answer: z.array(snapshotInfoSchema),
    run: (_, name) => backend.listSnapshots(name),
  });
  add({
    method: 'POST',
    url: all,
    body: createSnapshotSchema,
    answer: snapshotInfoSchema,
    run: (body, name, caller) => backend.createSnapshot(name, body.name, caller),
  });
  add({
    method: 'DELETE',
    url: one,
    body: none,
    answer: DONE,
    run: async (_, name, caller, snapshot) => {
      await backend.deleteSnapshot(name, snapshot, caller);
      return {};
    },
  });
  add({
    method: 'POST',
    url: `${one}/rollback`,
    body: none,
    answer: volumeInfoSchema,
    run: (_, name, caller, snapshot) => backend.rollBack(name, snapshot, caller),
  });
}

/** Jobs that copy volumes, whose id is that of the volume that is backed up, or made; and what is known of backups. */
function addBackupRoutes(add: Add, backend: AdminBackend): void {
  add({
    method: 'POST',
    url: '/v1/volumes/:id/backup',
    body: backUpVolumeSchema,
    answer: jobInfoSchema,
    run: (body, name, caller) => backend.backUpVolume(name, body, caller),
  });
  add({
    method: 'POST',
    url: '/v1/volumes/:id/restore',
    body: restoreVolumeSchema,
    answer: jobInfoSchema,
    run: (body, name, caller) => backend.restoreVolume(name, body, caller),
  });
  add({
    method: 'POST',
    url: '/v1/volumes/:id/snapshots/:snapshot/clone',
    body: cloneSnapshotSchema,
    answer: jobInfoSchema,
    run: (body, name, caller, snapshot) => backend.cloneSnapshot(name, snapshot, body.name, caller),
  });
  add({
    method: 'POST',
    url: '/v1/backup-forget',
    body: forgetBackupsSchema,
    answer: forgottenBackupsSchema,
    run: (body, _, caller) => backend.forgetBackups(body, caller),
  });
}

function addKeyRoutes(add: Add, backend: AdminBackend): void {
  const answer = z.array(keyStatusSchema);
  add({ method: 'GET', url: '/v1/keys', body: noBodySchema, answer, run: () => backend.keyStatus() });
  add({
    method: 'GET',
    url: '/v1/keys/:id',
    body: noBodySchema,
    answer,
    run: (_, name, caller) => backend.keyStatusOf(name, caller),
  });
  add({
    method: 'POST',
    url: '/v1/keys/:id/check',
    body: noBodySchema,
    answer,
    run: (_, name, caller) => backend.checkVolumeKey(name, caller),
  });
  add({
    method: 'POST',
    url: '/v1/keys/:id/set',
    body: setKeySchema,
    answer: keySetSchema,
    run: (body, name, caller) => backend.setKey(name, body.keyUri, body.reencrypt, caller),
  });
  add({
    method: 'POST',
    url: '/v1/keys/:id/rotate',
    body: rotateKeySchema,
    answer: rotatedSchema,
    run: (body, name, caller) => backend.rotateKey(name, body.reencrypt, caller),
  });
  add({
    method: 'POST',
    url: '/v1/keys/:id/rewrap',
    body: noBodySchema,
    answer: keyChangeSchema,
    run: (_, name, caller) => backend.rewrapKey(name, caller),
  });
  add({
    method: 'POST',
    url: '/v1/key-check',
    body: keyUriSchema,
    answer: keyReportSchema,
    run: (body) => backend.checkKey(body.keyUri),
  });
  add({
    method: 'POST',
    url: '/v1/key-usage',
    body: usageOfSchema,
    answer: z.array(keyUsageSchema),
    run: (body) => backend.keyUsage(body.keyUri),
  });
  add({
    method: 'POST',
    url: '/v1/local-keys/:id/export',
    body: passphraseSchema,
    answer: keyFileSchema,
    run: (body, name, caller) => backend.exportLocalKey(name, body.passphrase, caller),
  });
  add({
    method: 'POST',
    url: '/v1/local-keys/:id/import',
    body: importKeySchema,
    answer: importedKeySchema,
    run: (body, name, caller) => backend.importLocalKey(name, body.passphrase, body.file, caller),
  });
}

function addJobRoutes(add: Add, backend: AdminBackend): void {
  const none = noBodySchema;
  const job = jobInfoSchema;
  add({ method: 'GET', url: '/v1/jobs', body: none, answer: z.array(job), run: () => backend.listJobs() });
  add({ method: 'GET', url: '/v1/jobs/:id', body: none, answer: job, run: (_, id) => backend.job(id) });
  add({
    method: 'DELETE',
    url: '/v1/jobs/:id',
    body: none,
    answer: job,
    run: (_, id, caller) => backend.cancelJob(id, caller),
  });
}

function bodyOf<Body extends z.ZodType>(schema: Body, request: FastifyRequest): z.output<Body> {
  const parsed = schema.safeParse(request.body);
  if (parsed.success) return parsed.data;
  const { path, message } = parsed.error.issues[0];
  // The value is not quoted: it may be a passphrase.
  throw new SealbdError('USAGE', `${path.join('.') || 'body'}: ${message}`);
}

function nameOf(request: FastifyRequest, parameter: 'id' | 'snapshot'): string {
  const name = (request.params as Partial<Record<string, string>>)[parameter];
  if (name === undefined) return '';
  const parsed = nameSchema.safeParse(name);
  if (parsed.success) return parsed.data;
  throw new SealbdError('USAGE', `"${name}": ${parsed.error.issues[0].message}`);
}

function callerOf(request: FastifyRequest): Caller {
  const agent = request.headers['user-agent'] ?? '';
  return { kind: agent === CLI_AGENT ? 'cli' : 'admin', peer: request.socket.remoteAddress ?? 'unix' };
}
