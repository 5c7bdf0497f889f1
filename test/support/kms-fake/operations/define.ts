/** An operation is the model of its request, and what it does with one. */
import type { Call } from '../account.js';
import { type Input, type Model, readInput } from '../parameters.js';

/** JSON of the answer; undefined for those that answer with nothing. */
export type Output = Readonly<Record<string, unknown>> | undefined;

/** Throws an AwsError for every answer that is an error. */
export type Operation = (call: Call, body: Buffer) => Output;

export function operation<M extends Model>(
  model: M,
  run: (call: Call, input: Input<M>) => Output,
): Operation {
  return (call, body) => run(call, readInput(model, body));
}
