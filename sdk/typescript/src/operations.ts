/** Long work: seeing it, waiting for it, stopping it; and the erasure of a user, which is such work. */

import { type Api, cancellable, data, named } from "./api.js";
import { Pages } from "./pages.js";
import type { Cancellable, Operation, Paged, Repeatable } from "./types.js";

const FINAL = new Set<Operation["status"]>(["succeeded", "failed", "cancelled"]);
const POLL_MS = 1_000;

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
  async wait(id: string, options: Cancellable = {}): Promise<Operation> {
    for (;;) {
      const operation = await this.get(id, options);
      if (FINAL.has(operation.status)) return operation;
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
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
