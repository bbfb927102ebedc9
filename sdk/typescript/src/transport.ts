/**
 * Sends requests: with the API key, within a time, and again when that is safe and may help. Everything that this
 * package sends goes through here, so what is true of one request is true of all.
 */

import pRetry from "p-retry";
import { ApiError, ConnectionError, errorOf, UnexpectedAnswerError } from "./errors.js";

export interface TransportOptions {
  /** `ctx_…` */
  apiKey: string;
  /** How long one attempt may take, its answer included. Streams: how long nothing may come. */
  timeoutMs?: number;
  /** How often a request is sent again; 0 for never. */
  retries?: number;
  /** The longest pause between two attempts. When the service asks for more, its error is thrown instead. */
  retryDelayMsMax?: number;
  /** In place of the global `fetch`. */
  fetch?: (request: Request) => Promise<Response>;
}

/** The service gives up after 30 seconds, and should be the one to say so. */
const TIMEOUT_MS = 35_000;
const RETRIES = 3;
const RETRY_DELAY_MS_MIN = 250;
const RETRY_DELAY_MS_MAX = 30_000;

/** Answers that a later attempt may not get. */
const TRANSIENT_STATUSES = new Set([429, 502, 503, 504]);
/** Of these the service says that nothing was done. */
const NOTHING_DONE = new Set(["rate_limited", "too_many_searches", "overloaded", "database_busy"]);
/** As are these, by the system: the request was never sent. */
const NOTHING_SENT = new Set(["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "EHOSTUNREACH", "UND_ERR_CONNECT_TIMEOUT"]);
/** `POST`s that write nothing. */
const READING_POST = /\/(search|pack|count|compare)$/;

/**
 * No redirect is followed: the API key would go there, too, and what was a write may arrive as a GET. With `"error"` there
 * would be no telling it from a broken connection.
 */
export const REDIRECT = "manual";

/** What Node.js 18 has in a module only, everybody else has globally. */
const { randomUUID } = "crypto" in globalThis ? { randomUUID: () => crypto.randomUUID() } : await import("node:crypto");

export class Transport {
  readonly timeoutMs: number;
  readonly retries: number;
  readonly #apiKey: string;
  readonly #retryDelayMsMax: number;
  readonly #fetch: (request: Request) => Promise<Response>;

  constructor(options: TransportOptions) {
    this.#apiKey = options.apiKey;
    this.timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
    this.retries = options.retries ?? RETRIES;
    this.#retryDelayMsMax = options.retryDelayMsMax ?? RETRY_DELAY_MS_MAX;
    this.#fetch = options.fetch ?? ((request) => fetch(request));
  }

  /** For requests whose body can be sent again. */
  readonly send = async (request: Request): Promise<Response> => {
    // The service then does it once, however often it is sent.
    if (request.method === "POST" && !READING_POST.test(new URL(request.url).pathname)) {
      nameRequest(request.headers);
    }
    return this.again(async (isRepeated) => {
      const signal = AbortSignal.any([request.signal, AbortSignal.timeout(this.timeoutMs)]);
      try {
        return await whole(await this.once(new Request(request.clone(), { signal, redirect: REDIRECT })));
      } catch (error) {
        // It was there before the attempt whose answer was lost.
        if (isRepeated && request.method === "DELETE" && error instanceof ApiError && error.status === 404) {
          return new Response(null, { status: 204 });
        }
        throw error;
      }
    }, !isConditionalChange(request), request.signal);
  };

  /** One attempt. Throws what is no success. */
  async once(request: Request): Promise<Response> {
    request.headers.set("authorization", `Bearer ${this.#apiKey}`);
    let response;
    let problem;
    try {
      response = await this.#fetch(request);
      if (response.status >= 400) problem = await response.text();
    } catch (error) {
      throw connectionError(error);
    }
    if (problem !== undefined) throw errorOf(response, problem);
    if (isRedirect(response)) {
      await response.body?.cancel().catch(() => undefined);
      const to = response.headers.get("location");
      throw new UnexpectedAnswerError(`nothing was done: HTTP status ${response.status}, to ${to}; correct baseUrl`);
    }
    return response;
  }

  /**
   * Attempts until one succeeds, a further one is of no use or would not be safe, or `signal` aborts; then the reason is
   * thrown as it is.
   */
  async again<T>(
    attempt: (isRepeated: boolean) => Promise<T>,
    isRepeatable: boolean,
    signal: AbortSignal | undefined,
  ): Promise<T> {
    signal?.throwIfAborted();
    let mayBeDone = false;
    return pRetry(() => attempt(mayBeDone), {
      ...(signal === undefined ? {} : { signal }),
      retries: this.retries,
      minTimeout: RETRY_DELAY_MS_MIN,
      maxTimeout: this.#retryDelayMsMax,
      randomize: true,
      // Its other hook, for each failure, is called even when this one has said no.
      shouldRetry: async (error) => {
        mayBeDone ||= !isUndone(error);
        const asked = error instanceof ApiError ? (error.retryAfterSeconds ?? 0) * 1000 : 0;
        const again = isTransient(error) && (isRepeatable || isUndone(error)) && asked <= this.#retryDelayMsMax;
        if (again && error.retriesLeft > 0) await pause(asked, signal);
        return again;
      },
    });
  }
}

/** With its body read to the end, so that an answer that breaks off is a failed attempt. */
export async function whole(response: Response): Promise<Response> {
  try {
    const body = await response.arrayBuffer();
    return new Response(body.byteLength > 0 ? body : null, response);
  } catch (error) {
    throw connectionError(error);
  }
}

/** Browsers do not tell which. 304 is an answer to a question. */
function isRedirect({ status, type }: Response): boolean {
  return type === "opaqueredirect" || (status >= 300 && status !== 304);
}

/** Gives a write a name of its own, unless it has one. */
export function nameRequest(headers: Headers): void {
  if (!headers.has("idempotency-key")) headers.set("idempotency-key", randomUUID());
}

/** Sent again after a lost answer, it would meet the version that it has made itself, and be refused. */
function isConditionalChange(request: Request): boolean {
  return request.headers.has("if-match") && request.method !== "POST" && request.method !== "GET";
}

function isTransient(error: unknown): boolean {
  if (error instanceof ConnectionError) return true;
  return error instanceof ApiError && (TRANSIENT_STATUSES.has(error.status) || error.code === "idempotency_key_in_flight");
}

function isUndone(error: unknown): boolean {
  if (error instanceof ConnectionError) return NOTHING_SENT.has(systemCode(error.cause));
  return error instanceof ApiError && NOTHING_DONE.has(error.code);
}

/** Where Node.js hides why `fetch` failed. */
function systemCode(error: unknown): string {
  const cause = error instanceof Error ? error.cause : undefined;
  return cause instanceof Error && "code" in cause ? String(cause.code) : "";
}

export function connectionError(cause: unknown): ConnectionError {
  const why = cause instanceof Error && cause.cause instanceof Error ? cause.cause : cause;
  return new ConnectionError(`no answer: ${why instanceof Error ? why.message : String(why)}`, { cause });
}

/** Ends early when `signal` aborts. */
export function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, signal?.aborted ? 0 : ms);
    signal?.addEventListener("abort", end);
  });
}
