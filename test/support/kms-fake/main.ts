/**
 * npm run kms-fake -- [--port N]
 *
 * Serves a fake of AWS KMS on 127.0.0.1 until it is interrupted, and prints how to use it.
 */
import { parseArgs } from 'node:util';
import { CONTROL_PATH } from './control.js';
import { FAULT_KINDS } from './faults.js';
import { KEY_STATES } from './keys.js';
import { KmsFake } from './kms-fake.js';

const ALIAS = 'alias/demo';
const PORT_DEFAULT = 8555;

function portOf(args: readonly string[]): number {
  const { values } = parseArgs({ args: [...args], options: { port: { type: 'string' } } });
  const port = values.port === undefined ? PORT_DEFAULT : Number(values.port);
  if (Number.isInteger(port) && port >= 0 && port <= 65_535) return port;
  throw new Error(`--port ${values.port}: expected a number from 0 to 65535`);
}

function usage(fake: KmsFake, arn: string): string {
  const exports = Object.entries(fake.environment()).map(([name, value]) => `export ${name}=${value}`);
  const control = (command: object): string =>
    `curl -s ${fake.endpoint}${CONTROL_PATH} -d '${JSON.stringify(command)}'`;
  return `
A fake of AWS KMS serves ${fake.endpoint}. It protects nothing, and its keys are gone when it ends:
so is the data of every volume under them.

The key ${arn} exists, and ${ALIAS} points at it.

In the shell that starts sealbd:
  ${exports.join('\n  ')}

Then:
  sealbd volume create demo --size 1G --key awskms:///${ALIAS}

Take the key away, and give it back (states: ${KEY_STATES.join(', ')}):
  ${control({ do: 'set-state', key: ALIAS, state: 'Disabled' })}
  ${control({ do: 'set-state', key: ALIAS, state: 'Enabled' })}

Forbid something to the daemon's user, and allow it again:
  ${control({ do: 'deny', actions: ['kms:Decrypt'] })}
  ${control({ do: 'allow', actions: ['kms:Decrypt'] })}

A second key; new material for the first; the alias pointed elsewhere:
  ${control({ do: 'create-key', alias: 'alias/second' })}
  ${control({ do: 'rotate', key: ALIAS })}
  ${control({ do: 'set-alias', alias: ALIAS, key: 'alias/second' })}

Faults (${FAULT_KINDS.join(', ')}):
  ${control({ do: 'inject', fault: 'throttling', operations: ['Decrypt'], times: 3 })}
  ${control({ do: 'inject', fault: 'hang' })}
  ${control({ do: 'clear-faults' })}
  ${control({ do: 'outage', forMs: 60_000 })}

Credentials that expire; what was asked and answered:
  ${control({ do: 'expire-access-key', accessKeyId: fake.daemonCredentials.accessKeyId })}
  ${control({ do: 'requests' })}

Changes of keys, aliases and permissions take "afterRequests" and "afterMs", to show late.
`;
}

const fake = await KmsFake.start({ port: portOf(process.argv.slice(2)) });
const key = fake.createKey({ alias: ALIAS, description: 'made at the start of the fake' });
process.stdout.write(usage(fake, key.arn));
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    void fake.stop().then(() => process.exit(0));
  });
}
