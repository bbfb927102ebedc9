/** A running service, a user for each test, and faults that a healthy service does not show on request. */

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import type { TestContext } from "node:test";
import { ContextApi, type ContextApiOptions } from "context-api-client";

function variable(name: string): string {
  const value = process.env[name];
  assert(value, `${name} is not set`);
  return value;
}

export const baseUrl = variable("CONTEXT_API_URL");
export const apiKey = variable("CONTEXT_API_KEY");

export function connect(options: Partial<ContextApiOptions> = {}): ContextApi {
  return new ContextApi({ baseUrl, apiKey, ...options });
}

export const newUser = (): string => randomUUID();

/**
 * `refused`: not sent. `lost`: carried out, but the answer is lost. A number: the answer is cut off after so many bytes.
 * A response: the answer of somebody who does not carry it out.
 */
export type Fault = "refused" | "lost" | number | Response;

/** Lets requests through to the service, the first ones with a fault each. */
export class Faulty {
  readonly requests: Request[] = [];
  readonly #faults: Fault[];

  constructor(...faults: Fault[]) {
    this.#faults = faults;
  }

  readonly fetch = async (request: Request): Promise<Response> => {
    this.requests.push(request);
    const fault = this.#faults.shift();
    if (fault instanceof Response) return fault;
    if (fault === "refused") throw refused();
    const response = await fetch(request);
    if (fault === "lost") {
      await response.arrayBuffer();
      throw new TypeError("fetch failed");
    }
    return typeof fault === "number" ? cut(response, fault) : response;
  };
}

/** As Node.js says it. */
function refused(): TypeError {
  const cause = Object.assign(new Error("connect ECONNREFUSED"), { code: "ECONNREFUSED" });
  return new TypeError("fetch failed", { cause });
}

function cut(response: Response, size: number): Response {
  let left = size;
  const short = new TransformStream<Uint8Array, Uint8Array>({
    transform(chunk, controller) {
      controller.enqueue(chunk.subarray(0, left));
      left -= chunk.length;
      if (left <= 0) controller.error(new TypeError("terminated"));
    },
  });
  assert(response.body);
  return new Response(response.body.pipeThrough(short), response);
}

/** Time that passes when it is told to. It puts off what was to happen after `setTimeout` until then. */
export function standStill(t: TestContext): (ms: number) => void {
  let now = 0;
  let last = 0;
  const timers = new Map<number, { due: number; act: () => void }>();
  t.mock.method(performance, "now", () => now);
  t.mock.method(globalThis, "setTimeout", (act: () => void, ms: number) => {
    last += 1;
    timers.set(last, { due: now + ms, act });
    return last;
  });
  t.mock.method(globalThis, "clearTimeout", (timer: number) => timers.delete(timer));
  return (ms) => {
    now += ms;
    for (const [timer, { due, act }] of timers) {
      if (due > now) continue;
      timers.delete(timer);
      act();
    }
  };
}

/** An answer of a service that is busy. */
export function busy(status: number, code: string, retryAfter: number): Response {
  const problem = { type: `/errors/${code}`, title: "Busy", status, detail: "Later.", code };
  return Response.json(problem, { status, headers: { "retry-after": String(retryAfter) } });
}
