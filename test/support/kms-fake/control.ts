/** Commands to the fake over HTTP: POST /_control with JSON, from this machine only. `npm run kms-fake` shows examples. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { z } from 'zod';
import { FAULT_KINDS } from './faults.js';
import { KEY_STATES } from './keys.js';
import type { KmsFake } from './kms-fake.js';

export const CONTROL_PATH = '/_control';

const BODY_BYTES_MAX = 64 * 1024;
const MS_MAX = 24 * 3_600_000;

const ms = z.int().min(0).max(MS_MAX);
const lag = { afterRequests: z.int().min(0).optional(), afterMs: ms.optional() };
const key = z.string().min(1);
const grant = { actions: z.array(z.string()).min(1), key: key.optional(), principal: z.string().optional() };

const commandSchema = z.discriminatedUnion('do', [
  z.strictObject({ do: z.literal('create-key'), alias: z.string().optional() }),
  z.strictObject({ do: z.literal('set-alias'), alias: z.string(), key, ...lag }),
  z.strictObject({ do: z.literal('delete-alias'), alias: z.string(), ...lag }),
  z.strictObject({ do: z.literal('set-state'), key, state: z.enum(KEY_STATES), ...lag }),
  z.strictObject({ do: z.literal('delete-key'), key, ...lag }),
  z.strictObject({ do: z.literal('rotate'), key, ...lag }),
  z.strictObject({ do: z.literal('allow'), ...grant, ...lag }),
  z.strictObject({ do: z.literal('deny'), ...grant, ...lag }),
  z.strictObject({
    do: z.literal('inject'),
    fault: z.enum(FAULT_KINDS),
    operations: z.array(z.string()).min(1).optional(),
    times: z.int().min(1).optional(),
    delayMs: ms.optional(),
  }),
  z.strictObject({ do: z.literal('clear-faults') }),
  z.strictObject({ do: z.literal('outage'), forMs: ms }),
  z.strictObject({ do: z.literal('client-lag'), ...lag }),
  z.strictObject({ do: z.literal('settle') }),
  z.strictObject({
    do: z.literal('pending-deletion-error'),
    error: z.enum(['KMSInvalidStateException', 'DisabledException']),
  }),
  z.strictObject({ do: z.literal('add-access-key'), expiresInMs: ms.optional() }),
  z.strictObject({ do: z.literal('expire-access-key'), accessKeyId: z.string() }),
  z.strictObject({ do: z.literal('remove-access-key'), accessKeyId: z.string() }),
  z.strictObject({ do: z.literal('requests') }),
  z.strictObject({ do: z.literal('clear-requests') }),
]);
export type Command = z.infer<typeof commandSchema>;

/** Answers 200 and JSON, or 400 and `{"error": ...}` where the command cannot be carried out. */
export async function handleControl(
  fake: KmsFake,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const answer = (status: number, body: unknown): void => {
    response.writeHead(status, { 'Content-Type': 'application/json' });
    response.end(`${JSON.stringify(body)}\n`);
  };
  // A page in a browser on this machine could post as well; it cannot leave out this header.
  if (request.method !== 'POST' || request.headers.origin !== undefined) {
    answer(403, { error: 'expected a POST that no browser made' });
    return;
  }
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes <= BODY_BYTES_MAX) chunks.push(chunk);
  }
  try {
    if (bytes > BODY_BYTES_MAX) throw new Error(`a command has at most ${BODY_BYTES_MAX} bytes`);
    const command = parseCommand(Buffer.concat(chunks).toString('utf8'));
    if (command.do === 'outage') response.once('close', () => void outage(fake, command.forMs));
    answer(200, runCommand(fake, command) ?? {});
  } catch (error) {
    answer(400, { error: error instanceof Error ? error.message : String(error) });
  }
}

function parseCommand(text: string): Command {
  const parsed = commandSchema.safeParse(JSON.parse(text));
  if (parsed.success) return parsed.data;
  throw new Error(z.prettifyError(parsed.error));
}

async function outage(fake: KmsFake, forMs: number): Promise<void> {
  await fake.stop();
  await new Promise((resolve) => setTimeout(resolve, forMs));
  await fake.start();
}

function runCommand(fake: KmsFake, command: Command): unknown {
  switch (command.do) {
    case 'create-key': {
      const made = fake.createKey(command.alias === undefined ? {} : { alias: command.alias });
      return { keyId: made.id, arn: made.arn };
    }
    case 'set-alias':
      return fake.setAlias(command.alias, command.key, command);
    case 'delete-alias':
      return fake.deleteAlias(command.alias, command);
    case 'set-state':
      return fake.setState(command.key, command.state, command);
    case 'delete-key':
      return fake.deleteKey(command.key, command);
    case 'rotate':
      return fake.rotate(command.key, command);
    case 'allow':
      return fake.allow(command.actions, { ...command, lag: command });
    case 'deny':
      return fake.deny(command.actions, { ...command, lag: command });
    case 'inject':
      fake.inject(command.fault, command);
      return undefined;
    case 'clear-faults':
      return fake.clearFaults();
    case 'outage':
      // Begins when this answer is out.
      return undefined;
    case 'client-lag':
      fake.clientLag = command;
      return undefined;
    case 'settle':
      return fake.settle();
    case 'pending-deletion-error':
      fake.pendingDeletionError = command.error;
      return undefined;
    case 'add-access-key': {
      const { expiresInMs } = command;
      const made = fake.addAccessKey(
        expiresInMs === undefined ? {} : { expiresAtMs: Date.now() + expiresInMs },
      );
      return fake.environment(made);
    }
    case 'expire-access-key':
      return fake.expireAccessKey(command.accessKeyId);
    case 'remove-access-key':
      return fake.removeAccessKey(command.accessKeyId);
    case 'requests':
      return fake.requests;
    case 'clear-requests':
      return fake.clearRequests();
  }
}
