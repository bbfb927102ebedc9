/** The typed calls that are generated from the document, and how their answers are taken. */

import createClient, { type Client } from "openapi-fetch";
import { UnexpectedAnswerError } from "./errors.js";
import type { paths } from "./generated/schema.js";
import type { Transport } from "./transport.js";
import type { Repeatable } from "./types.js";

export type Api = Client<paths>;

export function createApi(transport: Transport, baseUrl: string): Api {
  return createClient<paths>({ baseUrl, fetch: transport.send });
}

/** The transport throws whatever is no success, so an answer without data is none of this service. */
export async function data<T>(call: Promise<{ data?: T | undefined }>): Promise<T> {
  const answer = await call;
  if (answer.data === undefined) throw new UnexpectedAnswerError("the answer has no body; see whether baseUrl is right");
  return answer.data;
}

export function named(options: Repeatable): { "Idempotency-Key"?: string } {
  return options.idempotencyKey === undefined ? {} : { "Idempotency-Key": options.idempotencyKey };
}

export function cancellable(options: { signal?: AbortSignal | undefined }): { signal?: AbortSignal } {
  return options.signal === undefined ? {} : { signal: options.signal };
}
