/** The handshake as a state machine over bytes, without a socket. */
import { describe, expect, it } from 'vitest';
import { SealbdError } from '../../src/base/errors.js';
import {
  LIST_ENTRIES_PER_TURN_MAX,
  LISTS_PER_HANDSHAKE_MAX,
  META_CONTEXTS_PER_OPTION_MAX,
  OPTION_BYTES_MAX,
  OPTIONS_PER_HANDSHAKE_MAX,
} from '../../src/base/limits.js';
import type { BlockDevice } from '../../src/device/block-device.js';
import type { ExportSource } from '../../src/nbd/exports.js';
import { Handshake } from '../../src/nbd/handshake.js';
import type { NegotiationHost, Outcome, TlsMode } from '../../src/nbd/negotiation.js';
import { Feature, Info, Option, Rep } from '../../src/nbd/wire/constants.js';
import {
  decodeOptionReplyHeader,
  encodeInfoRequest,
  encodeMetaRequest,
  encodeOption,
} from '../../src/nbd/wire/option.js';
import { exportsOf, MemoryDevice } from '../support/memory-device.js';

const disk = new MemoryDevice({ name: 'disk', description: 'a disk', sizeBytes: 1 << 20 });
const snapshot = new MemoryDevice({ name: 'disk@snap', sizeBytes: 4096, readOnly: true });

class Host implements NegotiationHost {
  exports: ExportSource = exportsOf(disk, snapshot);
  tls: TlsMode = 'off';
  secured = false;
  shuttingDown = false;
  attached: BlockDevice[] = [];
  attachError: Error | undefined;
  sent = Buffer.alloc(0);
  lent = 0;

  lend(bytes: number): void {
    this.lent += bytes;
  }

  attach(device: BlockDevice): void {
    if (this.attachError !== undefined) throw this.attachError;
    this.attached.push(device);
  }

  reply(bytes: Uint8Array): void {
    this.sent = Buffer.concat([this.sent, bytes]);
  }

  /** The option replies since the last call. */
  replies(): { option: number; reply: number; data: Buffer }[] {
    const replies = [];
    for (let at = 0; at < this.sent.length; ) {
      const header = decodeOptionReplyHeader(this.sent.subarray(at));
      if (header === undefined) throw new Error('not an option reply');
      replies.push({ ...header, data: this.sent.subarray(at + 20, at + 20 + header.length) });
      at += 20 + header.length;
    }
    this.sent = Buffer.alloc(0);
    return replies;
  }

  codes(): number[] {
    return this.replies().map(({ reply }) => reply);
  }
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

/** Feeds everything; returns the last outcome and how many bytes were taken. */
function feed(handshake: Handshake, bytes: Uint8Array): { outcome: Outcome; consumed: number } {
  let consumed = 0;
  let outcome: Outcome = { kind: 'more' };
  while ((consumed < bytes.length && outcome.kind === 'more') || outcome.kind === 'again') {
    const step = handshake.feed(bytes.subarray(consumed));
    consumed += step.consumed;
    outcome = step.outcome;
  }
  return { outcome, consumed };
}

function start(change: (host: Host) => void = () => undefined, clientFlags = 3) {
  const host = new Host();
  change(host);
  const handshake = new Handshake(host);
  host.sent = Buffer.alloc(0);
  const flags = feed(handshake, u32(clientFlags));
  const option = (code: number, data: Uint8Array = Buffer.alloc(0)) =>
    feed(handshake, encodeOption(code, data)).outcome;
  return { host, handshake, option, flags };
}

describe('the memory of an option', () => {
  const header = encodeOption(99, Buffer.alloc(OPTION_BYTES_MAX)).subarray(0, 16);

  it('grows with what has come of it, comes out of that of all clients, and is given back', () => {
    const { host, handshake } = start();
    feed(handshake, header);
    expect(host.lent).toBe(0);
    feed(handshake, Buffer.alloc(3000));
    expect(host.lent).toBeGreaterThanOrEqual(3000);
    expect(host.lent).toBeLessThanOrEqual(6000);
    feed(handshake, Buffer.alloc(OPTION_BYTES_MAX - 3001));
    expect(host.lent).toBe(OPTION_BYTES_MAX - 1);
    feed(handshake, Buffer.alloc(1));
    expect([host.lent, host.codes()]).toEqual([0, [Rep.ERR_UNSUP]]);
    feed(handshake, Buffer.concat([header, Buffer.alloc(5000)]));
    handshake.end();
    expect(host.lent).toBe(0);
  });
});

const go = (name: string, ...infos: number[]) => encodeInfoRequest({ name, infos });
const meta = (name: string, ...queries: string[]) => encodeMetaRequest({ name, queries });

describe('greeting and client flags', () => {
  it('greets with fixed newstyle and no-zeroes', () => {
    const host = new Host();
    new Handshake(host);
    expect(host.sent.toString('hex')).toBe(`${Buffer.from('NBDMAGICIHAVEOPT').toString('hex')}0003`);
  });

  it('an unknown client handshake flag drops the connection', () => {
    for (const bit of [2, 3, 15, 31]) {
      expect(start(undefined, (3 | (1 << bit)) >>> 0).flags.outcome.kind).toBe('drop');
    }
    expect(start(undefined, 0).flags.outcome.kind).toBe('more');
  });

  it('takes its bytes one at a time as well as all at once', () => {
    const { host, handshake } = start();
    const bytes = encodeOption(Option.GO, go('disk', Info.BLOCK_SIZE));
    for (const byte of bytes.subarray(0, -1)) {
      expect(feed(handshake, Buffer.from([byte])).outcome.kind).toBe('more');
    }
    expect(feed(handshake, bytes.subarray(-1)).outcome.kind).toBe('transmit');
    expect(host.codes()).toEqual([Rep.INFO, Rep.INFO, Rep.ACK]);
  });

  it('takes no byte behind the option that ends it', () => {
    const { handshake } = start();
    const bytes = encodeOption(Option.GO, go('disk'));
    const { outcome, consumed } = feed(handshake, Buffer.concat([bytes, Buffer.from('request')]));
    expect(outcome.kind).toBe('transmit');
    expect(consumed).toBe(bytes.length);
  });

  it('an option with another magic drops the connection', () => {
    const { handshake } = start();
    expect(feed(handshake, Buffer.alloc(16, 0x41)).outcome.kind).toBe('drop');
  });
});

describe('options', () => {
  it('an unknown option gets UNSUP and stays in sync', () => {
    const { host, option } = start();
    expect(option(0xdead, Buffer.alloc(100, 7)).kind).toBe('more');
    expect(option(Option.EXTENDED_HEADERS).kind).toBe('more');
    expect(option(4).kind).toBe('more');
    option(Option.LIST);
    expect(host.codes()).toEqual([
      Rep.ERR_UNSUP,
      Rep.ERR_UNSUP,
      Rep.ERR_UNSUP,
      Rep.SERVER,
      Rep.SERVER,
      Rep.ACK,
    ]);
  });

  it('an option longer than the limit is skipped, answered TOO_BIG, and stays in sync', () => {
    const { host, option } = start();
    expect(option(Option.LIST, Buffer.alloc(OPTION_BYTES_MAX + 1)).kind).toBe('more');
    expect(option(Option.LIST, Buffer.alloc(3 * OPTION_BYTES_MAX)).kind).toBe('more');
    option(Option.STRUCTURED_REPLY);
    expect(host.codes()).toEqual([Rep.ERR_TOO_BIG, Rep.ERR_TOO_BIG, Rep.ACK]);
  });

  it('an endless series of options drops the connection', () => {
    const { option } = start();
    for (let i = 0; i < OPTIONS_PER_HANDSHAKE_MAX; i++) expect(option(99).kind).toBe('more');
    expect(option(99).kind).toBe('drop');
  });

  it('a series of LISTs is answered so often, then refused', () => {
    const { host, option } = start();
    for (let i = 0; i < LISTS_PER_HANDSHAKE_MAX; i++) {
      option(Option.LIST);
      expect(host.codes()).toEqual([Rep.SERVER, Rep.SERVER, Rep.ACK]);
    }
    option(Option.LIST);
    option(Option.STRUCTURED_REPLY);
    expect(host.codes()).toEqual([Rep.ERR_POLICY, Rep.ACK]);
  });

  it('a long LIST is answered in parts, and what comes behind it after its end', () => {
    let looked = 0;
    const { host, handshake } = start((h) => {
      h.exports = { lookup: () => undefined, defaultName: undefined, list };
    });
    function* list() {
      for (; looked < 100; looked++) {
        // One that the client is not told about costs as much to look at.
        yield looked % 2 === 0 ? { name: `disk${looked}`, description: '' } : undefined;
      }
    }
    const behind = encodeOption(Option.STRUCTURED_REPLY, Buffer.alloc(0));
    handshake.feed(encodeOption(Option.LIST, Buffer.alloc(0)));
    expect(looked).toBe(0);
    let parts = 0;
    for (; handshake.answering; parts++) {
      const before = looked;
      expect(handshake.feed(behind).consumed).toBe(0);
      expect(looked - before).toBeLessThanOrEqual(LIST_ENTRIES_PER_TURN_MAX);
    }
    expect(parts).toBe(Math.ceil(101 / LIST_ENTRIES_PER_TURN_MAX));
    feed(handshake, behind);
    expect(host.codes()).toEqual([...new Array(50).fill(Rep.SERVER), Rep.ACK, Rep.ACK]);
  });

  it('ABORT is acknowledged, whatever data it carries', () => {
    const { host, option } = start();
    expect(option(Option.ABORT, Buffer.from('bye')).kind).toBe('close');
    expect(host.codes()).toEqual([Rep.ACK]);
  });

  it('LIST and STRUCTURED_REPLY with data are INVALID', () => {
    const { host, option } = start();
    option(Option.LIST, Buffer.alloc(1));
    option(Option.STRUCTURED_REPLY, Buffer.alloc(1));
    expect(host.codes()).toEqual([Rep.ERR_INVALID, Rep.ERR_INVALID]);
  });

  it('LIST gives name and description', () => {
    const { host, option } = start();
    option(Option.LIST);
    const [first] = host.replies();
    expect(first.data.toString('hex')).toBe(
      u32(4).toString('hex') + Buffer.from('diska disk').toString('hex'),
    );
  });

  it('while shutting down everything but ABORT is answered SHUTDOWN', () => {
    const { host, option } = start((h) => {
      h.shuttingDown = true;
    });
    for (const code of [Option.LIST, Option.GO, Option.INFO, Option.STRUCTURED_REPLY, 99])
      option(code, go('disk'));
    expect(host.codes()).toEqual(new Array(5).fill(Rep.ERR_SHUTDOWN));
    expect(option(Option.ABORT).kind).toBe('close');
    expect(
      start((h) => {
        h.shuttingDown = true;
      }).option(Option.EXPORT_NAME, Buffer.from('disk')).kind,
    ).toBe('drop');
  });
});

describe('EXPORT_NAME', () => {
  it('answers size and flags, padded unless the client declined zeroes', () => {
    for (const [flags, bytes] of [
      [3, 10],
      [1, 134],
    ]) {
      const { host, option } = start(undefined, flags);
      const outcome = option(Option.EXPORT_NAME, Buffer.from('disk'));
      expect(outcome.kind).toBe('transmit');
      expect(host.sent.length).toBe(bytes);
      expect(host.sent.readBigUInt64BE()).toBe(1n << 20n);
    }
  });

  it('of an unknown, malformed or endless name drops the connection', () => {
    for (const name of [
      Buffer.from('nope'),
      Buffer.from([0xff]),
      Buffer.from('disk\0'),
      Buffer.alloc(70_000, 0x61),
    ]) {
      const { host, option } = start();
      expect(option(Option.EXPORT_NAME, name).kind).toBe('drop');
      expect(host.sent.length).toBe(0);
      expect(host.attached).toEqual([]);
    }
  });
});

describe('INFO and GO', () => {
  it('tell what was asked, once each, and the export always', () => {
    const { host, option } = start();
    option(Option.INFO, go('', Info.NAME, Info.BLOCK_SIZE, Info.DESCRIPTION, Info.NAME, 77));
    const replies = host.replies();
    const infos = replies.slice(0, -1).map(({ data }) => data.readUInt16BE());
    expect(infos.sort()).toEqual([Info.EXPORT, Info.NAME, Info.DESCRIPTION, Info.BLOCK_SIZE]);
    const text = (info: number) =>
      replies.find(({ data }) => data.length > 0 && data.readUInt16BE() === info)?.data.subarray(2);
    expect(text(Info.NAME)?.toString()).toBe('disk');
    expect(text(Info.DESCRIPTION)?.toString()).toBe('a disk');
    expect(text(Info.BLOCK_SIZE)?.toString('hex')).toBe('000000010000100002000000');
  });

  it('INFO opens nothing; GO attaches once, at its end', () => {
    const { host, option } = start();
    option(Option.INFO, go('disk'));
    option(Option.GO, go('nope'));
    expect(host.attached).toEqual([]);
    option(Option.GO, go('disk'));
    expect(host.attached).toEqual([disk]);
  });

  it('an unknown name is UNKNOWN, a name that overruns its option INVALID', () => {
    const { host, option } = start();
    option(Option.GO, go('nope'));
    option(Option.GO, Buffer.concat([u32(100), Buffer.from('disk'), Buffer.alloc(2)]));
    option(Option.GO, Buffer.concat([u32(0xffff_ffff), Buffer.from('disk'), Buffer.alloc(2)]));
    option(Option.GO, Buffer.alloc(3));
    option(Option.GO, Buffer.concat([go('disk'), Buffer.alloc(1)]));
    option(Option.INFO, Buffer.concat([u32(5000), Buffer.alloc(5000, 0x61), Buffer.alloc(2)]));
    expect(host.codes()).toEqual([Rep.ERR_UNKNOWN, ...new Array(5).fill(Rep.ERR_INVALID)]);
  });

  it('the empty name is the default export, or UNKNOWN where there is none', () => {
    expect(start().option(Option.GO, go('')).kind).toBe('transmit');
    const { host, option } = start((h) => {
      h.exports = { ...h.exports, defaultName: undefined };
    });
    option(Option.GO, go(''));
    expect(host.codes()).toEqual([Rep.ERR_UNKNOWN]);
  });

  it('an export that cannot be used now is refused with the reason', () => {
    const { host, option } = start((h) => {
      h.exports = { ...h.exports, lookup: () => new SealbdError('KEY_UNAVAILABLE', 'the key is disabled') };
    });
    option(Option.GO, go('disk'));
    const [{ reply, data }] = host.replies();
    expect(reply).toBe(Rep.ERR_POLICY);
    expect(data.toString()).toBe('the key is disabled');
  });

  it('a device that takes no client turns GO into an error, not a connection', () => {
    const { host, option } = start((h) => {
      h.attachError = new SealbdError('ESHUTDOWN', 'stopping');
    });
    expect(option(Option.GO, go('disk')).kind).toBe('more');
    expect(host.codes()).toEqual([Rep.ERR_POLICY]);
  });

  it('transmission flags: DF only after structured replies, no trim on a read-only export', () => {
    const plain = start().option(Option.GO, go('disk'));
    const expected =
      Feature.HAS_FLAGS |
      Feature.FLUSH |
      Feature.FUA |
      Feature.TRIM |
      Feature.WRITE_ZEROES |
      Feature.MULTI_CONN |
      Feature.CACHE |
      Feature.FAST_ZERO;
    expect(plain).toMatchObject({ kind: 'transmit', negotiated: { features: expected, structured: false } });
    const { option } = start();
    option(Option.STRUCTURED_REPLY);
    expect(option(Option.GO, go('disk@snap'))).toMatchObject({
      negotiated: {
        structured: true,
        features:
          Feature.HAS_FLAGS |
          Feature.READ_ONLY |
          Feature.FLUSH |
          Feature.FUA |
          Feature.DF |
          Feature.MULTI_CONN |
          Feature.CACHE,
      },
    });
  });
});

describe('meta contexts', () => {
  const allocation = 'base:allocation';

  function structured(change?: (host: Host) => void) {
    const started = start(change);
    started.option(Option.STRUCTURED_REPLY);
    started.host.codes();
    return started;
  }

  const selected = (outcome: Outcome) => outcome.kind === 'transmit' && outcome.negotiated.allocation;

  it('need structured replies first', () => {
    const { host, option } = start();
    option(Option.SET_META_CONTEXT, meta('disk', allocation));
    option(Option.LIST_META_CONTEXT, meta('disk'));
    expect(host.codes()).toEqual([Rep.ERR_INVALID, Rep.ERR_INVALID]);
  });

  it('SET selects base:allocation with an id', () => {
    const { host, option } = structured();
    option(Option.SET_META_CONTEXT, meta('disk', 'x-none:1', allocation, allocation));
    const [context, ack] = host.replies();
    expect(context.reply).toBe(Rep.META_CONTEXT);
    expect(context.data.readUInt32BE()).not.toBe(0);
    expect(context.data.subarray(4).toString()).toBe(allocation);
    expect(ack.reply).toBe(Rep.ACK);
    expect(selected(option(Option.GO, go('disk')))).toBe(true);
  });

  it('SET replaces earlier selections even when it fails', () => {
    const failures = [
      Buffer.alloc(2),
      meta('nope', allocation),
      meta('disk', 'nocolon'),
      Buffer.alloc(OPTION_BYTES_MAX + 1),
    ];
    for (const failure of failures) {
      const { host, option } = structured();
      option(Option.SET_META_CONTEXT, meta('disk', allocation));
      host.codes();
      option(Option.SET_META_CONTEXT, failure);
      expect(host.codes().at(-1)).toBeGreaterThan(Rep.ERR_UNSUP - 1);
      expect(selected(option(Option.GO, go('disk')))).toBe(false);
    }
  });

  it('SET without queries selects nothing, and replaces', () => {
    const { host, option } = structured();
    option(Option.SET_META_CONTEXT, meta('disk', allocation));
    option(Option.SET_META_CONTEXT, meta('disk'));
    expect(host.codes()).toEqual([Rep.META_CONTEXT, Rep.ACK, Rep.ACK]);
    expect(selected(option(Option.GO, go('disk')))).toBe(false);
  });

  it('a selection binds to its export name', () => {
    const { option } = structured();
    option(Option.SET_META_CONTEXT, meta('disk', allocation));
    expect(selected(option(Option.GO, go('disk@snap')))).toBe(false);
    const other = structured();
    other.option(Option.SET_META_CONTEXT, meta('', allocation));
    expect(selected(other.option(Option.GO, go('disk')))).toBe(true);
  });

  it('plain base: is ignored in SET and is a wildcard in LIST', () => {
    const { host, option } = structured();
    option(Option.SET_META_CONTEXT, meta('disk', 'base:'));
    expect(host.codes()).toEqual([Rep.ACK]);
    option(Option.LIST_META_CONTEXT, meta('disk', 'base:'));
    expect(host.codes()).toEqual([Rep.META_CONTEXT, Rep.ACK]);
    expect(selected(option(Option.GO, go('disk')))).toBe(false);
  });

  it('LIST without queries tells all; unknown namespaces and leaves are ignored', () => {
    const { host, option } = structured();
    option(Option.LIST_META_CONTEXT, meta('disk'));
    expect(host.codes()).toEqual([Rep.META_CONTEXT, Rep.ACK]);
    option(Option.LIST_META_CONTEXT, meta('disk', 'qemu:dirty-bitmap:x', 'x-y:', 'base:other'));
    option(Option.SET_META_CONTEXT, meta('disk', 'qemu:dirty-bitmap:x', 'base:other'));
    expect(host.codes()).toEqual([Rep.ACK, Rep.ACK]);
  });

  it('LIST does not select', () => {
    const { option } = structured();
    option(Option.LIST_META_CONTEXT, meta('disk', allocation));
    expect(selected(option(Option.GO, go('disk')))).toBe(false);
  });

  it('too many queries are TOO_BIG, a query that overruns its option INVALID', () => {
    const { host, option } = structured();
    option(
      Option.SET_META_CONTEXT,
      meta('disk', ...new Array(META_CONTEXTS_PER_OPTION_MAX + 1).fill(allocation)),
    );
    const overrun = Buffer.from(meta('disk', allocation));
    overrun.writeUInt32BE(1000, 12);
    option(Option.SET_META_CONTEXT, overrun);
    const claims = Buffer.from(meta('disk', allocation));
    claims.writeUInt32BE(0xffff_ffff, 8);
    option(Option.SET_META_CONTEXT, claims);
    expect(host.codes()).toEqual([Rep.ERR_TOO_BIG, Rep.ERR_INVALID, Rep.ERR_INVALID]);
  });
});

describe('STARTTLS', () => {
  it('is refused by policy where TLS is off, and TLS_REQD is never said', () => {
    const { host, option } = start();
    option(Option.STARTTLS);
    expect(host.codes()).toEqual([Rep.ERR_POLICY]);
  });

  it('with data is INVALID', () => {
    const { host, option } = start((h) => {
      h.tls = 'optional';
    });
    option(Option.STARTTLS, Buffer.alloc(1));
    expect(host.codes()).toEqual([Rep.ERR_INVALID]);
  });

  it('throws away all that was negotiated before it', () => {
    const { host, option } = start((h) => {
      h.tls = 'optional';
    });
    option(Option.STRUCTURED_REPLY);
    option(Option.SET_META_CONTEXT, meta('disk', 'base:allocation'));
    expect(option(Option.STARTTLS).kind).toBe('starttls');
    host.secured = true;
    expect(option(Option.GO, go('disk'))).toMatchObject({
      kind: 'transmit',
      negotiated: { structured: false, allocation: false },
    });
  });

  it('throws away how many options and lists came before it, once', () => {
    const { host, option } = start((h) => {
      h.tls = 'optional';
    });
    for (let i = 0; i < LISTS_PER_HANDSHAKE_MAX; i++) option(Option.LIST);
    for (let i = LISTS_PER_HANDSHAKE_MAX; i < OPTIONS_PER_HANDSHAKE_MAX - 1; i++) option(99);
    expect(option(Option.STARTTLS).kind).toBe('starttls');
    host.secured = true;
    host.replies();
    for (let i = 0; i < LISTS_PER_HANDSHAKE_MAX; i++) option(Option.LIST);
    option(Option.LIST);
    expect(host.codes().filter((code) => code !== Rep.SERVER)).toEqual([
      ...new Array(LISTS_PER_HANDSHAKE_MAX).fill(Rep.ACK),
      Rep.ERR_POLICY,
    ]);
    option(Option.STARTTLS);
    expect(host.codes()).toEqual([Rep.ERR_INVALID]);
    const left = OPTIONS_PER_HANDSHAKE_MAX - LISTS_PER_HANDSHAKE_MAX - 2;
    for (let i = 0; i < left; i++) expect(option(99).kind).toBe('more');
    expect(option(99).kind).toBe('drop');
  });

  it("takes no byte behind it, so plaintext injected there is the caller's to discard", () => {
    const { handshake } = start((h) => {
      h.tls = 'optional';
    });
    const bytes = encodeOption(Option.STARTTLS, Buffer.alloc(0));
    const injected = Buffer.concat([bytes, encodeOption(Option.GO, go('disk'))]);
    expect(feed(handshake, injected)).toMatchObject({
      outcome: { kind: 'starttls' },
      consumed: bytes.length,
    });
  });

  it('a second one is INVALID', () => {
    const { host, option } = start((h) => {
      h.tls = 'required';
      h.secured = true;
    });
    option(Option.STARTTLS);
    expect(host.codes()).toEqual([Rep.ERR_INVALID]);
  });

  it('forced TLS answers TLS_REQD to everything but STARTTLS and ABORT, and drops EXPORT_NAME', () => {
    const forced = () =>
      start((h) => {
        h.tls = 'required';
      });
    const { host, option } = forced();
    for (const code of [
      Option.LIST,
      Option.INFO,
      Option.GO,
      Option.STRUCTURED_REPLY,
      Option.SET_META_CONTEXT,
      1234,
    ]) {
      expect(option(code, go('disk')).kind).toBe('more');
    }
    expect(host.codes()).toEqual(new Array(6).fill(Rep.ERR_TLS_REQD));
    expect(option(Option.STARTTLS).kind).toBe('starttls');
    expect(forced().option(Option.ABORT).kind).toBe('close');
    expect(forced().option(Option.EXPORT_NAME, Buffer.from('disk')).kind).toBe('drop');
  });
});
