/** A client that reconnects does not notice that the daemon was restarted, whether it was asked to go or killed. */
import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { DaemonProcess } from '../support/daemon-process.js';
import { temporaryDirectory } from '../support/key-fixtures.js';
import { hasProgram } from '../support/programs.js';

const STEP_MS_MAX = 40_000;
const PROMPT = 'qemu-io> ';

/** qemu-io in a pipe, one command at a time. */
class QemuIo {
  readonly #child: ChildProcess;
  #output = '';

  constructor(port: string, exportName: string) {
    const image = `driver=nbd,host=127.0.0.1,port=${port},export=${exportName},reconnect-delay=30`;
    this.#child = spawn('qemu-io', ['--image-opts', image], { stdio: ['pipe', 'pipe', 'pipe'] });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.#output += text;
      });
    }
    onTestFinished(() => {
      this.#child.kill('SIGKILL');
    });
  }

  /** Sends a command; resolves with its output when the next prompt has come. */
  async run(command: string): Promise<string> {
    await this.#untilPrompt('the start');
    this.#output = '';
    this.#child.stdin?.write(`${command}\n`);
    return (await this.#untilPrompt(command)).slice(0, -PROMPT.length);
  }

  async #untilPrompt(what: string): Promise<string> {
    const deadline = Date.now() + STEP_MS_MAX;
    while (!this.#output.endsWith(PROMPT)) {
      if (this.#child.exitCode !== null || Date.now() > deadline) {
        throw new Error(`qemu-io, ${what}: ${this.#output}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return this.#output;
  }

  async write(pattern: number, offset: string, length: string): Promise<void> {
    expect(await this.run(`write -P ${pattern} ${offset} ${length}`)).toMatch(/^wrote (\d+)\/\1 bytes/);
  }

  async read(pattern: number, offset: string, length: string): Promise<void> {
    const output = await this.run(`read -P ${pattern} ${offset} ${length}`);
    expect(output).toMatch(/^read (\d+)\/\1 bytes/);
    expect(output).not.toContain('Pattern verification failed');
  }

  async flush(): Promise<void> {
    // It says nothing unless it failed.
    expect(await this.run('flush')).toBe('');
  }

  async quit(): Promise<number | null> {
    const ended = new Promise<number | null>((resolve) => this.#child.once('exit', resolve));
    this.#child.stdin?.write('quit\n');
    return await ended;
  }
}

it.skipIf(!hasProgram('qemu-io'))(
  'qemu-io with reconnect-delay survives SIGTERM and kill -9 of the daemon',
  {
    timeout: 120_000,
  },
  async () => {
    const data = join(temporaryDirectory(), 'data');
    let daemon = await DaemonProcess.start(data, ['--default-volume', 'v:64M']);
    const listen = daemon.ready.listen[0];
    const port = listen.slice(listen.lastIndexOf(':') + 1);
    const restart = async (): Promise<void> => {
      daemon = await DaemonProcess.start(data, ['--listen', listen]);
    };
    const client = new QemuIo(port, 'v');
    await client.write(1, '0', '1M');
    await client.flush();

    expect((await daemon.stop()).code).toBe(0);
    await restart();
    await client.read(1, '0', '1M');
    await client.write(2, '1M', '1M');
    await client.flush();

    await daemon.signal('SIGKILL');
    // Sent while nobody listens: it waits for the daemon.
    const waiting = client.write(3, '2M', '1M');
    await restart();
    await waiting;
    await client.flush();
    await client.read(1, '0', '1M');
    await client.read(2, '1M', '1M');
    await client.read(3, '2M', '1M');
    expect(await client.quit()).toBe(0);
    expect((await daemon.stop()).code).toBe(0);
  },
);
