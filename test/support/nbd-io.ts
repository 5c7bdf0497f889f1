/** Patterned reads and writes through qemu-io, an NBD client that nobody here wrote. */
import { spawn } from 'node:child_process';

export interface ClientResult {
  readonly code: number | null;
  readonly output: string;
}

export function qemuIo(uri: string, ...commands: string[]): Promise<ClientResult> {
  return program('qemu-io', ['-f', 'raw', uri, ...commands.flatMap((command) => ['-c', command])]);
}

export function program(name: string, args: readonly string[]): Promise<ClientResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(name, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (chunk: string) => {
        output += chunk;
      });
    }
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, output }));
  });
}
