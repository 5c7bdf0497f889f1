/** Servers as real processes, each with one volume of the same size on the same medium. Peers are in peers.ts. */
import { type ChildProcess, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { get } from 'node:http';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { type Programs, run, stop, until } from './processes.js';

const READY_TIMEOUT_MS = 30_000;
const COMMAND_TIMEOUT_MS = 60_000;
/** Clock ticks of /proc/PID/stat: USER_HZ, which is 100 on every architecture that Linux has today. */
const TICKS_PER_SECOND = 100;

/** What a process has used since it started. */
export interface Usage {
  /** Processor time, user and system. */
  readonly cpuSeconds: number;
  /** What it had to fetch from the medium: nothing where the cache is warm. */
  readonly mediumReadBytes: number;
  /** Pages that it made dirty, so that they must go to the medium; one that is overwritten before it went counts once. */
  readonly mediumWrittenBytes: number;
  /** Resident memory now, shared pages included. */
  readonly residentBytes: number;
}

export interface Server {
  readonly name: string;
  readonly uri: string;
  readonly pid: number;
  /** Of the process; throws where it has ended. */
  usage(): Usage;
  stop(): Promise<void>;
}

/** Ours can be told things. */
export interface Sealbd extends Server {
  /** Runs a command against the daemon and returns what it printed. */
  command(...args: string[]): Promise<string>;
  /** A number of its metrics, of the volume `bench`, such as `sealbd_volume_moved_bytes_total`. */
  metric(name: string): Promise<number>;
}

export interface Place {
  readonly programs: Programs;
  readonly root: string;
  readonly directory: string;
  readonly sizeBytes: number;
}

export function isInstalled(program: string): boolean {
  return spawnSync('sh', ['-c', `command -v ${program}`]).status === 0;
}

/** A daemon with one volume. `config` is TOML. */
export async function startSealbd(
  place: Place,
  name: string,
  cipher: string,
  config: string,
): Promise<Sealbd> {
  const { programs, root, sizeBytes } = place;
  const main = join(root, 'dist/cli/main.js');
  if (!existsSync(main)) throw new Error('dist/ is missing: run "npm run build" first');
  const directory = join(place.directory, name);
  mkdirSync(directory, { recursive: true });
  const configFile = join(directory, 'config.toml');
  writeFileSync(configFile, config);
  const data = join(directory, 'data');
  // As the first line of the program says.
  const serve = [
    '--max-semi-space-size=2',
    main,
    'serve',
    '--data',
    data,
    '--config',
    configFile,
    '--listen',
    '127.0.0.1:0',
  ];
  const child = programs.spawn(process.execPath, serve, 'pipe');
  child.stdout!.resume();
  let log = '';
  child.stderr!.setEncoding('utf8').on('data', (part: string) => {
    log += part;
  });
  const address = await until(child, `${name}: sealbd`, READY_TIMEOUT_MS, () => listenAddress(log));
  const command = async (...args: string[]): Promise<string> => {
    const { stdout } = await run(
      programs,
      process.execPath,
      [main, ...args, '--data', data],
      COMMAND_TIMEOUT_MS,
    );
    return stdout;
  };
  await command('volume', 'create', 'bench', '--size', String(sizeBytes), '--cipher', cipher);
  const server = serverOf(name, `nbd://${address}/bench`, child, () => assertNoErrors(name, log));
  return { ...server, command, metric: (metric) => readMetric(join(data, 'admin.sock'), metric) };
}

function readMetric(socketPath: string, metric: string): Promise<number> {
  return new Promise((resolve, reject) => {
    get({ socketPath, path: '/metrics' }, (incoming) => {
      let text = '';
      incoming.setEncoding('utf8').on('data', (part: string) => {
        text += part;
      });
      incoming.once('end', () => {
        const line = text.split('\n').find((each) => each.startsWith(`${metric}{volume="bench"} `));
        if (line === undefined) return reject(new Error(`there is no metric ${metric}`));
        resolve(Number(line.slice(line.lastIndexOf(' ') + 1)));
      });
      incoming.once('error', reject);
    }).once('error', reject);
  });
}

function listenAddress(log: string): string | undefined {
  const line = log.split('\n').find((each) => each.includes('"msg":"ready'));
  return line === undefined ? undefined : (JSON.parse(line) as { listen: string[] }).listen[0];
}

const PINO_ERROR = 50;

/** A daemon that logged an error did not do the work that was timed. */
function assertNoErrors(name: string, log: string): void {
  for (const line of log.split('\n').filter((each) => each.startsWith('{'))) {
    const { level } = JSON.parse(line) as { level: number };
    if (level >= PINO_ERROR) throw new Error(`${name} logged an error: ${line}`);
  }
}

export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once('error', reject);
    probe.listen(0, '127.0.0.1', () => {
      const address = probe.address();
      probe.close(() => {
        if (address === null || typeof address === 'string') reject(new Error('no port'));
        else resolve(address.port);
      });
    });
  });
}

export function serverOf(
  name: string,
  uri: string,
  child: ChildProcess,
  check: () => void = () => undefined,
): Server {
  return {
    name,
    uri,
    pid: child.pid!,
    usage() {
      if (child.exitCode !== null || child.signalCode !== null) {
        throw new Error(`${name} ended with ${child.signalCode ?? `exit code ${child.exitCode}`}`);
      }
      return usageOf(child.pid!);
    },
    async stop() {
      await stop(child, name);
      check();
    },
  };
}

function usageOf(pid: number): Usage {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const io = readFileSync(`/proc/${pid}/io`, 'utf8');
  // The name in parentheses may contain anything; utime and stime are the 14th and 15th field.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return {
    cpuSeconds: (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND,
    mediumReadBytes: Number(/^read_bytes: (\d+)$/m.exec(io)![1]),
    mediumWrittenBytes: Number(/^write_bytes: (\d+)$/m.exec(io)![1]),
    residentBytes:
      Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) * 1024,
  };
}
