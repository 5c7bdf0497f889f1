import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { ADDON_FILE } from './native-kernels.js';

/**
 * Runs plain JavaScript in a worker thread with the addon as `addon` and `data` as `data`; the script's value is
 * what it posts. Slots and arenas are process-wide, so handles and refs can be handed over as numbers.
 */
export async function inWorker(script: string, data: unknown): Promise<unknown> {
  const worker = startWorker(script, data);
  const [message] = (await once(worker, 'message')) as [unknown];
  await worker.terminate();
  return message;
}

export function startWorker(script: string, data: unknown): Worker {
  const code = `
    const { parentPort, workerData } = require('node:worker_threads');
    const addon = require(workerData.addonFile);
    const data = workerData.data;
    ${script}
  `;
  return new Worker(code, { eval: true, workerData: { addonFile: ADDON_FILE, data } });
}
