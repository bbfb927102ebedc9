/** Long work: seeing it, waiting for it, stopping it; and the erasure of a user, which is such work. */

import { type Api, cancellable, data, named } from "./api.js";
import { StillRunningError } from "./errors.js";
import { Pages } from "./pages.js";
import { pause } from "./transport.js";
import type { Cancellable, Operation, Paged, Repeatable, WaitOptions } from "./types.js";

const FINAL = new Set<Operation["status"]>(["succeeded", "failed", "cancelled"]);
const POLL_MS = 1_000;
const WAIT_MS_MAX = 600_000;

export class Operations {
  readonly #api: Api;

  constructor(api: Api) {
    this.#api = api;
  }

  /** Newest first. */
  list(options: Paged = {}): Pages<Operation> {
    const { signal, ...rest } = options;
    return new Pages((cursor) => {
      const query = { ...rest, ...(cursor === undefined ? {} : { cursor }) };
      return data(this.#api.GET("/v1/operations", { params: { query }, ...cancellable({ signal }) }));
    });
  }

  get(id: string, options: Cancellable = {}): Promise<Operation> {
    return data(this.#api.GET("/v1/operations/{id}", { params: { path: { id } }, ...cancellable(options) }));
  }

  /** Asks until it has ended, well or not: look at `status`. */
  async wait(id: string, options: WaitOptions = {}): Promise<Operation> {
    const deadline = performance.now() + (options.timeoutMs ?? WAIT_MS_MAX);
    for (;;) {
      const operation = await this.get(id, options);
      if (FINAL.has(operation.status)) return operation;
      if (performance.now() >= deadline) throw new StillRunningError(operation);
      await pause(POLL_MS, options.signal);
    }
  }

  cancel(id: string, options: Repeatable = {}): Promise<Operation> {
    const params = { path: { id }, header: named(options) };
    return data(this.#api.POST("/v1/operations/{id}/cancel", { params, ...cancellable(options) }));
  }

  retry(id: string, options: Repeatable = {}): Promise<Operation> {
    const params = { path: { id }, header: named(options) };
    return data(this.#api.POST("/v1/operations/{id}/retry", { params, ...cancellable(options) }));
  }

  /** Erases everything of a user, for good. Only an operation that has `succeeded` is a proof. */
  eraseUser(userId: string, options: Cancellable = {}): Promise<Operation> {
    return data(this.#api.DELETE("/v1/users/{user_id}", { params: { path: { user_id: userId } }, ...cancellable(options) }));
  }
}
