/** Changing the embedding model while everything goes on. For operators. */

import { type Api, cancellable, data, named } from "./api.js";
import type {
  ActivateEmbeddingSpace,
  Cancellable,
  ChangeEmbeddingSpace,
  CompareEmbeddingSpace,
  Comparison,
  CreateEmbeddingSpace,
  EmbeddingSpace,
  Repeatable,
  SpaceFailure,
} from "./types.js";

export class EmbeddingSpaces {
  readonly #api: Api;

  constructor(api: Api) {
    this.#api = api;
  }

  async list(options: Cancellable = {}): Promise<EmbeddingSpace[]> {
    return (await data(this.#api.GET("/v1/embedding-spaces", cancellable(options)))).data;
  }

  get(id: number, options: Cancellable = {}): Promise<EmbeddingSpace> {
    return data(this.#api.GET("/v1/embedding-spaces/{id}", { params: { path: { id } }, ...cancellable(options) }));
  }

  create(space: CreateEmbeddingSpace, options: Repeatable = {}): Promise<EmbeddingSpace> {
    const params = { header: named(options) };
    return data(this.#api.POST("/v1/embedding-spaces", { body: space, params, ...cancellable(options) }));
  }

  change(id: number, change: ChangeEmbeddingSpace, options: Cancellable = {}): Promise<EmbeddingSpace> {
    const params = { path: { id } };
    return data(this.#api.PATCH("/v1/embedding-spaces/{id}", { body: change, params, ...cancellable(options) }));
  }

  activate(id: number, how: ActivateEmbeddingSpace = {}, options: Repeatable = {}): Promise<EmbeddingSpace> {
    const params = { path: { id }, header: named(options) };
    return data(this.#api.POST("/v1/embedding-spaces/{id}/activate", { body: how, params, ...cancellable(options) }));
  }

  compare(id: number, what: CompareEmbeddingSpace, options: Cancellable = {}): Promise<Comparison> {
    const params = { path: { id } };
    return data(this.#api.POST("/v1/embedding-spaces/{id}/compare", { body: what, params, ...cancellable(options) }));
  }

  async failures(id: number, options: Cancellable = {}): Promise<SpaceFailure[]> {
    const params = { path: { id } };
    return (await data(this.#api.GET("/v1/embedding-spaces/{id}/failures", { params, ...cancellable(options) }))).data;
  }

  /** Tries its failed embeddings again. */
  retry(id: number, options: Repeatable = {}): Promise<EmbeddingSpace> {
    const params = { path: { id }, header: named(options) };
    return data(this.#api.POST("/v1/embedding-spaces/{id}/retry", { params, ...cancellable(options) }));
  }

  async delete(id: number, options: Cancellable = {}): Promise<void> {
    await this.#api.DELETE("/v1/embedding-spaces/{id}", { params: { path: { id } }, ...cancellable(options) });
  }
}
