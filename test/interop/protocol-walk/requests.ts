/**
 * Random requests in batches. Those of one batch are under way together, so none of them touches bytes that another one
 * changes; blocks they may share.
 */
import type { Dice } from '../../support/dice.js';
import type { Answer } from './answers.js';
import { BLOCK, type Change, PAGE } from './disk.js';
import { type ExportFacts, faultsOf, isChange, type RequestFacts, SUCCESS } from './facts.js';
import { type Cut, type Step, type Subject, split } from './walk.js';
import { CMD, FLAG, PAYLOAD_MAX, type RequestHeader, requestHeader } from './wire.js';

const KiB = 1024;
/** A refused WRITE has its payload behind it, in step, up to this length. */
const REFUSED_PAYLOAD_MAX = 96 * KiB;
/** Longer ones end the walk: no server reads so much over. */
const HUGE = 0x0900_0000;
const NONE = Buffer.alloc(0);

export class RequestsWalk {
  readonly steps: Step[] = [];
  serverCloses = false;
  cut: Cut | undefined;
  readonly #dice: Dice;
  readonly #subject: Subject;
  readonly #export: ExportFacts;
  /** Of this batch: what is read or told of, and what is changed. */
  #seen: [number, number][] = [];
  #changed: [number, number][] = [];
  #changes: Change[] = [];
  #bytes: Buffer[] = [];
  #requests: RequestFacts[] = [];

  constructor(dice: Dice, subject: Subject, given: ExportFacts) {
    this.#dice = dice;
    this.#subject = subject;
    this.#export = given;
    for (let i = dice.below(9); i > 0; i--) {
      for (let n = 1 + dice.below(12); n > 0; n--) this.#request();
      if (i > 1 || dice.chance(70)) this.#step();
    }
    this.#finish();
  }

  #request(): void {
    const dice = this.#dice;
    const type = dice.chance(96)
      ? dice.one(
          CMD.READ,
          CMD.READ,
          CMD.WRITE,
          CMD.WRITE,
          CMD.WRITE,
          CMD.TRIM,
          CMD.WRITE_ZEROES,
          CMD.FLUSH,
          CMD.CACHE,
          CMD.BLOCK_STATUS,
          CMD.BLOCK_STATUS,
        )
      : dice.one(8, 9, 255, 0xffff);
    const request: RequestHeader = {
      type,
      flags: this.#flags(type),
      cookie: dice.word64(),
      ...(type === CMD.FLUSH && dice.chance(90) ? { offset: 0n, length: 0 } : this.#range(type)),
    };
    const faults = faultsOf(request, this.#export);
    const { length } = request;
    const fits =
      length <= REFUSED_PAYLOAD_MAX ||
      faults.length === 0 ||
      (faults.includes('payload') && this.#subject.disk.size > length);
    if (type === CMD.WRITE && !fits) return;
    const payload = type === CMD.WRITE ? this.#payload(length) : NONE;
    const at = Number(request.offset);
    if (faults.length === 0 && length > 0 && !this.#claim(type, at, length)) return;
    this.#bytes.push(requestHeader(request), payload);
    this.#requests.push({
      ...request,
      export: this.#export,
      faults,
      ...this.#answerOf(request, faults.length > 0 || type === CMD.FLUSH),
    });
    if (faults.length === 0 && length > 0 && isChange(type))
      this.#changes.push({ type, offset: at, length, payload });
  }

  #flags(type: number): number {
    const dice = this.#dice;
    if (dice.chance(5)) return dice.one(1 << dice.below(16), dice.below(65_536));
    let flags = dice.chance(15) ? FLAG.FUA : 0;
    if (type === CMD.READ && dice.chance(30)) flags |= FLAG.DF;
    if (type === CMD.BLOCK_STATUS && dice.chance(30)) flags |= FLAG.REQ_ONE;
    if (type === CMD.WRITE_ZEROES) flags |= dice.one(0, FLAG.NO_HOLE) | dice.one(0, FLAG.FAST_ZERO);
    return flags;
  }

  #range(type: number): { offset: bigint; length: number } {
    const dice = this.#dice;
    const { size } = this.#subject.disk;
    if (dice.chance(2) && size > PAYLOAD_MAX && (type === CMD.READ || type === CMD.WRITE))
      return { offset: BigInt(dice.below(BLOCK)), length: PAYLOAD_MAX + dice.below(3 * BLOCK) };
    let length = dice.one(
      () => dice.below(600),
      () => dice.below(3 * BLOCK),
      () => BLOCK * (1 + dice.below(8)),
      () => BLOCK * (1 + dice.below(8)),
      () => dice.below(300 * KiB),
      () => (type === CMD.WRITE ? dice.below(150 * KiB) : dice.below(size)),
    )();
    if (dice.chance(3)) length = 0;
    let offset = dice.one(
      () => dice.below(size),
      // Most happens in a corner, so that requests meet what others left there.
      () => dice.below(64 * KiB),
      () => dice.below(64 * KiB),
      () => BLOCK * dice.below(16),
      () => BLOCK * dice.below(64),
      () => PAGE * dice.below(8),
      () => Math.max(0, size - length),
    )();
    if (offset + length > size && dice.chance(85)) offset = Math.max(0, size - length - dice.below(BLOCK));
    if (dice.chance(2))
      return { offset: dice.one(BigInt(size), dice.word64(), 2n ** 64n - 1n, 2n ** 63n), length };
    if (dice.chance(2) && type !== CMD.WRITE) length = dice.one(0x7fff_ffff, 0xffff_ffff, 0xffff_f000, size);
    return { offset: BigInt(offset), length };
  }

  #payload(length: number): Buffer {
    if (this.#dice.chance(15)) return Buffer.alloc(length);
    if (this.#dice.chance(15) || length > PAYLOAD_MAX) return Buffer.alloc(length, 1 + this.#dice.below(255));
    return this.#dice.exactly(length);
  }

  /** False where another request of the batch changes something of it, or it would change what another one looks at. */
  #claim(type: number, at: number, length: number): boolean {
    const change = isChange(type);
    let [from, to] = [at, at + length];
    // nbdkit tells of whole pages.
    if (type === CMD.BLOCK_STATUS) [from, to] = [from - (from % PAGE), Math.ceil(to / PAGE) * PAGE];
    if (type === CMD.CACHE) return true;
    const meets = ([start, end]: [number, number]) => from < end && start < to;
    if (this.#changed.some(meets) || (change && this.#seen.some(meets))) return false;
    (change ? this.#changed : this.#seen).push([from, to]);
    return true;
  }

  /** From what the export holds before the batch. */
  #answerOf(
    request: RequestHeader,
    plain: boolean,
  ): Pick<RequestFacts, 'expected' | 'theirs' | 'pagesMapped'> {
    const { type, flags, length } = request;
    const { disk } = this.#subject;
    const at = Number(request.offset);
    let expected: Answer = SUCCESS;
    if (plain || length === 0) return { expected, theirs: NONE, pagesMapped: [] };
    if (type === CMD.READ) {
      expected = { ...SUCCESS, data: Buffer.from(disk.ours.subarray(at, at + length)) };
      return { expected, theirs: Buffer.from(disk.theirs.subarray(at, at + length)), pagesMapped: [] };
    }
    if (type !== CMD.BLOCK_STATUS) return { expected, theirs: NONE, pagesMapped: [] };
    expected = { ...SUCCESS, extents: disk.extents(at, length, (flags & FLAG.REQ_ONE) !== 0) };
    const [first, last] = [Math.floor(at / PAGE), Math.ceil((at + length) / PAGE)];
    const pagesMapped = Array.from({ length: last - first }, (_, i) =>
      disk.mapped.subarray(((first + i) * PAGE) / BLOCK, ((first + i + 1) * PAGE) / BLOCK).includes(1),
    );
    return { expected, theirs: Buffer.from(disk.theirs.subarray(first * PAGE, last * PAGE)), pagesMapped };
  }

  #step(tail?: Buffer): void {
    for (const change of this.#changes) this.#subject.disk.apply(change);
    this.steps.push({
      pieces: this.#bytes.length === 0 ? [] : split(this.#dice, Buffer.concat(this.#bytes)),
      options: [],
      requests: this.#requests,
      ...(tail === undefined ? {} : { tail }),
    });
    this.#seen = [];
    this.#changed = [];
    this.#changes = [];
    this.#bytes = [];
    this.#requests = [];
  }

  #finish(): void {
    const dice = this.#dice;
    const header = { flags: 0, cookie: dice.word64(), offset: 0n, length: 0 };
    if (dice.chance(60)) {
      this.serverCloses = true;
      this.#step(requestHeader({ ...header, type: CMD.DISC, flags: dice.one(0, FLAG.FUA) }));
      return;
    }
    dice.one(
      () => this.#step(),
      () => this.#step(requestHeader({ ...header, type: CMD.FLUSH }).subarray(0, 1 + dice.below(27))),
      () => this.#cutWrite(),
      () => this.#cutWrite(),
      () => {
        this.#step();
        this.serverCloses = true;
        this.#bytes.push(Buffer.alloc(28, 0x55));
        this.#step();
      },
      () => {
        this.#step();
        this.#huge();
      },
    )();
  }

  /** A WRITE that ends in its payload. */
  #cutWrite(): void {
    const dice = this.#dice;
    const { disk } = this.#subject;
    const length = Math.min(disk.size, dice.one(10_000, 200 * KiB, 400 * KiB));
    const offset = dice.below(disk.size - length + 1);
    const payload = dice.exactly(dice.below(length));
    // In the step behind: what was under way before may touch the same bytes.
    this.#step();
    if (!this.#subject.readOnly) this.cut = { offset, payload };
    const request = requestHeader({
      type: CMD.WRITE,
      flags: 0,
      cookie: dice.word64(),
      offset: BigInt(offset),
      length,
    });
    this.#step(Buffer.concat([request, payload]));
  }

  #huge(): void {
    const request = { type: CMD.WRITE, flags: 0, cookie: this.#dice.word64(), offset: 0n, length: HUGE };
    const faults = faultsOf(request, this.#export);
    this.#bytes.push(requestHeader(request));
    this.#requests.push({ ...request, export: this.#export, faults, ...this.#answerOf(request, true) });
    this.serverCloses = true;
    this.#step();
  }
}
