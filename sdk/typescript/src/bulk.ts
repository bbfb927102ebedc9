/** Import and export: streams of any length, of which only what is under way is in memory. */

import { connectionError, nameRequest, REDIRECT, type Transport, whole } from "./transport.js";
import { ConnectionError } from "./errors.js";
import type { ContextLine, ExportOptions, ImportAnswer, ImportOptions } from "./types.js";

export type Lines = Iterable<ContextLine> | AsyncIterable<ContextLine>;

/** So much is put together before it is sent; the service stores about as much at a time. */
const CHUNK_CHARS_MIN = 65_536;
/** Or what there is after so long: the service ends an import of which nothing comes for 30 seconds. */
const CHUNK_MS_MAX = 5_000;

export class Bulk {
  constructor(
    readonly transport: Transport,
    readonly baseUrl: string,
  ) {}

  /** An array, or a function that begins anew, can be sent again after a failure; another iterable only once. */
  async import(source: Lines | (() => Lines), options: ImportOptions = {}): Promise<ImportAnswer> {
    const url = new URL(`${this.baseUrl}/v1/contexts/import`);
    if (options.firstLine !== undefined) url.searchParams.set("first_line", String(options.firstLine));
    const headers = new Headers({ "content-type": "application/x-ndjson" });
    if (options.idempotencyKey !== undefined) headers.set("idempotency-key", options.idempotencyKey);
    nameRequest(headers);
    const attempt = async () => {
      const idle = new IdleTimer(this.transport.timeoutMs, options.signal);
      const lines = typeof source === "function" ? source() : source;
      let ofTheCaller: { error: unknown } | undefined;
      const body = ndjson(lines, idle, (error) => (ofTheCaller = { error }));
      // `duplex` is what streams need, and is missing in the types of TypeScript.
      const init = { method: "POST", headers, body, signal: idle.signal, redirect: REDIRECT, duplex: "half" } as const;
      try {
        const response = await whole(await this.transport.once(new Request(url, init)));
        return (await response.json()) as ImportAnswer;
      } catch (error) {
        // The connection broke because of it; another attempt would not mend it.
        if (ofTheCaller !== undefined) throw ofTheCaller.error;
        throw options.signal?.aborted ? options.signal.reason : error;
      } finally {
        idle.stop();
      }
    };
    const isReplayable = typeof source === "function" || Array.isArray(source);
    return isReplayable ? this.transport.again(attempt, true, options.signal) : attempt();
  }

  /** Goes on where it was when the connection breaks, with contexts as of the same moment. */
  async *export(options: ExportOptions = {}): AsyncGenerator<ContextLine, void, undefined> {
    const url = new URL(`${this.baseUrl}/v1/contexts/export`);
    for (const name of ["user_id", "context_type", "as_of", "after"] as const) {
      if (options[name] !== undefined) url.searchParams.set(name, options[name]);
    }
    if (options.filter !== undefined) url.searchParams.set("filter", JSON.stringify(options.filter));
    let breaks = 0;
    for (;;) {
      const { response, idle } = await this.transport.again(() => this.#open(url, options.signal), true, options.signal);
      // What follows a break has to be of the same moment.
      const asOf = response.headers.get("context-as-of");
      if (asOf !== null) url.searchParams.set("as_of", asOf);
      try {
        for await (const line of linesOf(response, idle)) {
          yield line;
          url.searchParams.set("after", line.id ?? "");
          breaks = 0;
        }
        return;
      } catch (error) {
        if (options.signal?.aborted) throw options.signal.reason;
        breaks += 1;
        if (!(error instanceof ConnectionError) || breaks > this.transport.retries) throw error;
      } finally {
        idle.stop();
      }
    }
  }

  async #open(url: URL, signal: AbortSignal | undefined): Promise<{ response: Response; idle: IdleTimer }> {
    const idle = new IdleTimer(this.transport.timeoutMs, signal);
    try {
      return { response: await this.transport.once(new Request(url, { signal: idle.signal, redirect: REDIRECT })), idle };
    } catch (error) {
      idle.stop();
      throw error;
    }
  }
}

/** Aborts when nothing happens for a while, however long the whole takes. */
class IdleTimer {
  readonly signal: AbortSignal;
  readonly #controller = new AbortController();
  readonly #ms: number;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isOver = false;

  constructor(ms: number, also: AbortSignal | undefined) {
    this.#ms = ms;
    this.signal = also ? AbortSignal.any([this.#controller.signal, also]) : this.#controller.signal;
    this.restart();
  }

  restart(): void {
    clearTimeout(this.#timer);
    if (this.#isOver) return;
    this.#timer = setTimeout(() => this.#controller.abort(new ConnectionError(`nothing came for ${this.#ms} ms`)), this.#ms);
  }

  pause(): void {
    clearTimeout(this.#timer);
  }

  /** For good: a stream may be asked for more even after its request has failed, and a timer would keep the program running. */
  stop(): void {
    this.#isOver = true;
    clearTimeout(this.#timer);
  }
}

/** Pulled by the connection, so the lines are made no faster than they are sent. `failed` hears why a line could not be made. */
function ndjson(lines: Lines, idle: IdleTimer, failed: (error: unknown) => void): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  const iterator = Symbol.asyncIterator in lines ? lines[Symbol.asyncIterator]() : lines[Symbol.iterator]();
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      let chunk = "";
      let isDone = false;
      const began = performance.now();
      try {
        while (!isDone && chunk.length < CHUNK_CHARS_MIN && performance.now() - began < CHUNK_MS_MAX) {
          const step = await iterator.next();
          idle.restart();
          isDone = step.done === true;
          if (!step.done) chunk += `${JSON.stringify(step.value)}\n`;
        }
      } catch (error) {
        failed(error);
        throw error;
      }
      if (chunk.length > 0) controller.enqueue(encoder.encode(chunk));
      if (isDone) controller.close();
    },
    async cancel() {
      await iterator.return?.();
    },
  });
}

/** Throws a `ConnectionError` when the stream breaks off. What the caller does between two lines is not timed. */
async function* linesOf(response: Response, idle: IdleTimer): AsyncGenerator<ContextLine, void, undefined> {
  if (response.body === null) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      idle.restart();
      const step = await reader.read().catch((error: unknown) => {
        throw error instanceof ConnectionError ? error : connectionError(error);
      });
      idle.pause();
      if (step.done) {
        if (rest !== "") throw new ConnectionError("the stream ended within a line");
        return;
      }
      const lines = (rest + step.value).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) yield JSON.parse(line) as ContextLine;
    }
  } finally {
    // Whoever stops looking does not want the rest.
    await reader.cancel().catch(() => undefined);
  }
}
