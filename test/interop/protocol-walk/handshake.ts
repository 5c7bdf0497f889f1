/** Random handshakes: options well-formed and not, and the way into the transmission phase, or out. */
import type { Dice } from '../../support/dice.js';
import type { ExportFacts, OptionFacts } from './facts.js';
import { ContextOfNbdkit } from './nbdkit-context.js';
import { longOption, type NamedData, namedInfo, namedMeta } from './option-data.js';
import { type Step, type Subject, split } from './walk.js';
import { ALLOCATION, OPT, option, u32 } from './wire.js';

const FIXED = 1;
const NO_ZEROES = 2;
const LISTS_MAX = 3;
const OPTION_HEADER_BYTES = 16;
const UNKNOWN_OPTIONS = [0, 4, OPT.EXTENDED_HEADERS, 12, 99, 0xffff_ffff] as const;
const NONE = Buffer.alloc(0);

export class HandshakeWalk {
  readonly steps: Step[] = [];
  /** What the transmission phase is about; undefined where it is not reached. */
  entered: ExportFacts | undefined;
  serverCloses = false;
  readonly #dice: Dice;
  readonly #subject: Subject;
  readonly #flags: number;
  #structured = false;
  #ourContext = false;
  readonly #theirs = new ContextOfNbdkit();
  #lists = 0;
  #tail: Buffer | undefined;
  /** Not yet sent. */
  #bytes: Buffer[];
  #options: OptionFacts[] = [];

  constructor(dice: Dice, subject: Subject) {
    this.#dice = dice;
    this.#subject = subject;
    this.#flags = dice.chance(80) ? FIXED | dice.one(0, NO_ZEROES) : dice.one(0, NO_ZEROES);
    if (dice.chance(3)) {
      this.#bytes = [u32(this.#flags | (4 << dice.below(29))), option(OPT.LIST, NONE)];
      this.serverCloses = true;
      this.#step();
      return;
    }
    this.#bytes = [u32(this.#flags)];
    for (let i = dice.below(9); i > 0; i--) {
      this.#ordinary();
      if (dice.chance(60)) this.#step();
    }
    this.#finish();
  }

  get #fixed(): boolean {
    return (this.#flags & FIXED) !== 0;
  }

  #ordinary(): void {
    const dice = this.#dice;
    // nbdkit does not read the data of an option that it refuses for the missing flag, so there may be none.
    if (!this.#fixed) {
      this.#simple(dice.one(OPT.LIST, OPT.STARTTLS, dice.one(...UNKNOWN_OPTIONS)), NONE);
      return;
    }
    if (dice.chance(4)) {
      this.#long();
      return;
    }
    dice.one(
      () => this.#simple(OPT.LIST, this.#stray()),
      () => this.#simple(OPT.STARTTLS, this.#stray()),
      () => this.#simple(dice.one(...UNKNOWN_OPTIONS), dice.one(NONE, dice.bytes(300))),
      () => this.#structuredReply(),
      () => this.#structuredReply(),
      () => this.#info(OPT.INFO),
      () => this.#info(OPT.INFO),
      () => this.#info(OPT.GO),
      () => this.#meta(OPT.LIST_META_CONTEXT),
      () => this.#meta(OPT.SET_META_CONTEXT),
      () => this.#meta(OPT.SET_META_CONTEXT),
      () => this.#meta(OPT.SET_META_CONTEXT),
    )();
  }

  /** For options that take no data. */
  #stray(): Buffer {
    return this.#dice.chance(15) ? this.#dice.bytes(60) : NONE;
  }

  #simple(type: number, data: Buffer): void {
    if (type === OPT.LIST && data.length === 0 && ++this.#lists > LISTS_MAX) return;
    this.#add(type, data);
  }

  #structuredReply(): void {
    const data = this.#stray();
    this.#add(OPT.STRUCTURED_REPLY, data);
    if (data.length === 0) this.#structured = true;
  }

  #long(): void {
    const type = this.#dice.one<number>(
      OPT.LIST,
      OPT.STARTTLS,
      OPT.INFO,
      OPT.SET_META_CONTEXT,
      OPT.STRUCTURED_REPLY,
      12,
    );
    this.#add(type, longOption(this.#dice));
    if (type === OPT.SET_META_CONTEXT) this.#ourContext = false;
  }

  /** One that does not enter the transmission phase. */
  #info(type: number): void {
    const named = namedInfo(this.#dice, this.#subject, type === OPT.GO);
    this.#add(type, named.data, named);
    if (named.kind === 'good' || named.kind === 'unknown' || named.kind === 'not UTF-8')
      this.#theirs.looksAt(named.name, named.kind === 'good');
  }

  #meta(type: number, named = namedMeta(this.#dice, this.#subject)): void {
    this.#add(type, named.data, named);
    if (type === OPT.LIST_META_CONTEXT) return;
    if (this.#structured) this.#theirs.sets(named.data);
    const { kind, trailing, queries } = named;
    const allowed =
      kind === 'good' &&
      !trailing &&
      queries.length <= 64 &&
      queries.every((query) => query.indexOf(':') > 0);
    this.#ourContext = this.#structured && allowed && queries.includes(ALLOCATION);
  }

  #finish(): void {
    const dice = this.#dice;
    const name = Buffer.from(this.#subject.isDefault && dice.chance(20) ? '' : this.#subject.name);
    if (dice.chance(8)) {
      this.#leave();
      return;
    }
    // Most walks should get to see chunks and extents.
    if (this.#fixed && !this.#structured && dice.chance(60)) {
      this.#add(OPT.STRUCTURED_REPLY, NONE);
      this.#structured = true;
    }
    if (this.#structured && dice.chance(60)) {
      this.#meta(OPT.SET_META_CONTEXT, namedMeta(dice, this.#subject, [ALLOCATION]));
      // What may undo it.
      if (dice.chance(25)) this.#meta(OPT.SET_META_CONTEXT);
      if (dice.chance(15)) this.#info(dice.one(OPT.INFO, OPT.GO));
    }
    const byName = !this.#fixed || dice.chance(25);
    if (byName) this.#add(OPT.EXPORT_NAME, name);
    else {
      const named = namedInfo(dice, this.#subject, false, name);
      this.#add(OPT.GO, named.data, named);
    }
    this.#theirs.looksAt(name.toString(), true);
    const theirContext = this.#theirs.selected;
    this.entered = {
      size: this.#subject.disk.size,
      readOnly: this.#subject.readOnly,
      structured: this.#structured,
      ourContext: this.#ourContext,
      theirContext,
      contextLost: this.#ourContext && !theirContext ? this.#theirs.lost : undefined,
    };
    this.#step(byName);
  }

  #leave(): void {
    const dice = this.#dice;
    this.#step();
    dice.one(
      () => {
        // nbdkit does not wait for the data, and a reset for what it left would overtake its answer.
        const data = this.#fixed ? this.#stray() : NONE;
        this.#add(OPT.ABORT, data);
        this.#bytes.push(this.#bytes.pop()!.subarray(0, OPTION_HEADER_BYTES));
        if (data.length > 0) this.#tail = data;
      },
      () => {
        this.#add(OPT.EXPORT_NAME, dice.one(Buffer.from('nope'), Buffer.from('a\0b'), longOption(dice)));
        this.serverCloses = true;
      },
      () => {
        // Not an option: there is no answer.
        this.#bytes.push(Buffer.concat([dice.bytes(40), Buffer.alloc(16, 0x55)]));
        this.serverCloses = true;
      },
      () => {
        if (!this.#fixed) return;
        const whole = option(OPT.INFO, namedInfo(dice, this.#subject, false).data);
        this.#bytes.push(whole.subarray(0, dice.below(whole.length)));
      },
    )();
    this.#step(this.#options.at(-1)?.option === OPT.EXPORT_NAME);
  }

  #add(type: number, data: Buffer, named?: NamedData): void {
    this.#bytes.push(option(type, data));
    this.#options.push({
      option: type,
      dataBytes: data.length,
      fixed: this.#fixed,
      name: named?.kind ?? 'good',
      readOnly: this.#subject.readOnly,
      structured: this.#structured,
      listsBefore: type === OPT.LIST && data.length === 0 ? this.#lists - 1 : 0,
      queries: named?.queries ?? [],
      trailing: named?.trailing ?? false,
      listing: this.#subject.listing,
    });
  }

  #step(exportName = false): void {
    if (this.#bytes.length === 0) return;
    const padded = (this.#flags & NO_ZEROES) === 0;
    this.steps.push({
      pieces: split(this.#dice, Buffer.concat(this.#bytes)),
      options: this.#options,
      requests: [],
      ...(exportName ? { exportName: padded ? 'padded' : 'bare' } : {}),
      ...(this.#tail === undefined ? {} : { tail: this.#tail }),
      ...(this.entered === undefined ? {} : { enters: { structured: this.#structured } }),
    });
    this.#bytes = [];
    this.#options = [];
  }
}
