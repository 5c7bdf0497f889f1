/** Takes a walk with one server, and writes down what it answered. */
import { type Answer, Answers } from './answers.js';
import { ByteStream } from './byte-stream.js';
import type { Step, Walk } from './walk.js';
import { exportText, IHAVEOPT, NBDMAGIC, OPT, OPTION_REPLY_MAGIC, optionReplyText } from './wire.js';

/** What the replies to an option say; empty where the server closed instead. */
export type OptionAnswer = readonly string[];

export interface Transcript {
  readonly greeting: number;
  readonly options: OptionAnswer[];
  /** Undefined where the server closed instead. */
  readonly answers: (Answer | undefined)[];
  /** What the server did that no server may. */
  broken: string | undefined;
}

const PADDING_BYTES = 124;

/** `early` sends the tail of a step, and the end of the stream, without waiting for answers. */
export async function take(walk: Walk, address: string, early: boolean): Promise<Transcript> {
  const stream = await ByteStream.connect(address);
  const transcript: Transcript = { greeting: -1, options: [], answers: [], broken: undefined };
  try {
    const greeting = await stream.must(18);
    if (greeting.readBigUInt64BE() !== NBDMAGIC || greeting.readBigUInt64BE(8) !== IHAVEOPT)
      throw new Error('not the greeting of NBD');
    await new Conversation(stream, { ...transcript, greeting: greeting.readUInt16BE(16) }, early).hold(walk);
    return { ...transcript, greeting: greeting.readUInt16BE(16) };
  } catch (error) {
    transcript.broken = `${stream.silent ? 'silent: ' : ''}${error instanceof Error ? error.message : error}`;
    return transcript;
  } finally {
    await stream.destroy();
  }
}

class Conversation {
  readonly #stream: ByteStream;
  readonly #transcript: Transcript;
  readonly #early: boolean;
  /** Of the last selection that succeeded: for nbdkit it may outlive one that did not. */
  #contextId: number | undefined;
  #answers: Answers | undefined;

  constructor(stream: ByteStream, transcript: Transcript, early: boolean) {
    this.#stream = stream;
    this.#transcript = transcript;
    this.#early = early;
  }

  async hold(walk: Walk): Promise<void> {
    for (const step of walk.steps) {
      const last = step === walk.steps.at(-1) && !walk.serverCloses;
      const tail = step.tail === undefined ? [] : [step.tail];
      const sent = this.#stream.send(this.#early ? [...step.pieces, ...tail] : step.pieces).then(() => {
        if (this.#early && last) this.#stream.end();
      });
      await this.#listen(step);
      await sent;
      if (this.#early) continue;
      await this.#stream.send(tail);
      if (last) this.#stream.end();
    }
    const more = await this.#stream.take(1);
    if (this.#stream.silent) throw new Error('the connection stays open');
    if (more !== undefined) throw new Error('more came than was asked for');
  }

  async #listen(step: Step): Promise<void> {
    for (const [i, { option }] of step.options.entries()) {
      const last = i === step.options.length - 1;
      const named = last && step.exportName !== undefined;
      this.#transcript.options.push(named ? await this.#named(step) : await this.#replies(option));
    }
    if (step.enters !== undefined)
      this.#answers = new Answers(this.#stream, step.enters.structured, this.#contextId);
    const answers = this.#answers;
    if (answers === undefined) return;
    for (const request of step.requests) answers.expect(request);
    await answers.collect();
    for (const { cookie } of step.requests) this.#transcript.answers.push(answers.take(cookie));
  }

  /** The answer to EXPORT_NAME, which has no header. */
  async #named(step: Step): Promise<OptionAnswer> {
    const bytes = await this.#stream.take(10);
    if (bytes === undefined) return [];
    if (step.exportName === 'bare') return [exportText(bytes)];
    if ((await this.#stream.must(PADDING_BYTES)).some((byte) => byte !== 0))
      throw new Error('padding that is not zeros');
    return [exportText(bytes), 'PADDING'];
  }

  async #replies(option: number): Promise<OptionAnswer> {
    const texts: string[] = [];
    for (;;) {
      const header = await this.#stream.take(20);
      if (header === undefined) return texts;
      if (header.readBigUInt64BE() !== OPTION_REPLY_MAGIC) throw new Error('not an option reply');
      if (header.readUInt32BE(8) !== option)
        throw new Error(`a reply to option ${header.readUInt32BE(8)}, not ${option}`);
      const data = await this.#stream.must(header.readUInt32BE(16));
      const { text, final, id } = optionReplyText(header.readUInt32BE(12), data);
      texts.push(text);
      if (option === OPT.SET_META_CONTEXT && id !== undefined) this.#contextId = id;
      // Neither a list nor information has an order.
      if (final) return [...texts.slice(0, -1).sort(), texts.at(-1)!];
    }
  }
}
