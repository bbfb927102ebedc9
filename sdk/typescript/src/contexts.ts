/** Contexts: writing, reading, finding and packing them. */

import { Bulk, type Lines } from "./bulk.js";
import { Pages } from "./pages.js";
import { type Api, cancellable, data, named } from "./api.js";
import type {
  Batch,
  BatchResult,
  Cancellable,
  Conditional,
  Context,
  ContextLine,
  ContextPatch,
  ContextVersion,
  Count,
  CreateOptions,
  ExportOptions,
  ImportAnswer,
  ImportOptions,
  ListOptions,
  NewContext,
  Pack,
  PackResponse,
  Paged,
  Repeatable,
  Retried,
  RetryEmbeddings,
  Search,
  SearchResponse,
  WriteOptions,
} from "./types.js";

export class Contexts {
  readonly #api: Api;
  readonly #bulk: Bulk;

  constructor(api: Api, bulk: Bulk) {
    this.#api = api;
    this.#bulk = bulk;
  }

  /** Makes a context, or updates the one of this user that has its `key`. */
  create(context: NewContext, options: CreateOptions = {}): Promise<Context> {
    const header = {
      ...named(options),
      ...conditional(options),
      ...(options.ifNew ? { "If-None-Match": "*" as const } : {}),
    };
    const params = { query: waiting(options), header };
    return data(this.#api.POST("/v1/contexts", { body: context, params, ...cancellable(options) }));
  }

  get(id: string, options: Cancellable & { as_of?: string } = {}): Promise<Context> {
    const query = options.as_of === undefined ? {} : { as_of: options.as_of };
    return data(this.#api.GET("/v1/contexts/{id}", { params: { path: { id }, query }, ...cancellable(options) }));
  }

  /** Newest first. */
  list(options: ListOptions & Cancellable = {}): Pages<Context> {
    const { filter, signal, ...rest } = options;
    return new Pages((cursor) => {
      const query = {
        ...rest,
        ...(filter === undefined ? {} : { filter: JSON.stringify(filter) }),
        ...(cursor === undefined ? {} : { cursor }),
      };
      return data(this.#api.GET("/v1/contexts", { params: { query }, ...cancellable({ signal }) }));
    });
  }

  /** What is left out of `context` is gone afterwards. */
  replace(id: string, context: NewContext, options: WriteOptions = {}): Promise<Context> {
    const params = { path: { id }, query: waiting(options), header: conditional(options) };
    return data(this.#api.PUT("/v1/contexts/{id}", { body: context, params, ...cancellable(options) }));
  }

  /** A JSON merge patch: what is left out stays, null removes. */
  patch(id: string, patch: ContextPatch, options: WriteOptions = {}): Promise<Context> {
    const params = { path: { id }, query: waiting(options), header: conditional(options) };
    return data(this.#api.PATCH("/v1/contexts/{id}", { body: patch, params, ...cancellable(options) }));
  }

  /** Hides it; with `purge` it is gone for good, with its history. */
  async delete(id: string, options: Conditional & { purge?: boolean } = {}): Promise<void> {
    const query = options.purge ? { purge: true } : {};
    const params = { path: { id }, query, header: conditional(options) };
    await this.#api.DELETE("/v1/contexts/{id}", { params, ...cancellable(options) });
  }

  /** Brings a deleted context back, or makes it what it was in a version. */
  restore(id: string, options: Conditional & Repeatable & { version?: number } = {}): Promise<Context> {
    const body = options.version === undefined ? {} : { version: options.version };
    const params = { path: { id }, header: { ...named(options), ...conditional(options) } };
    return data(this.#api.POST("/v1/contexts/{id}/restore", { body, params, ...cancellable(options) }));
  }

  /** Superseded versions, newest first. */
  versions(id: string, options: Paged = {}): Pages<ContextVersion> {
    const { signal, ...rest } = options;
    return new Pages((cursor) => {
      const query = { ...rest, ...(cursor === undefined ? {} : { cursor }) };
      return data(this.#api.GET("/v1/contexts/{id}/versions", { params: { path: { id }, query }, ...cancellable({ signal }) }));
    });
  }

  /** Up to 1,000 writes. Look at each result: those that failed have an `error`. */
  async batch(batch: Batch, options: Repeatable = {}): Promise<BatchResult[]> {
    const params = { header: named(options) };
    return (await data(this.#api.POST("/v1/contexts/batch", { body: batch, params, ...cancellable(options) }))).results;
  }

  async count(which: Count, options: Cancellable = {}): Promise<number> {
    return (await data(this.#api.POST("/v1/contexts/count", { body: which, ...cancellable(options) }))).count;
  }

  search(search: Search, options: Cancellable = {}): Promise<SearchResponse> {
    return data(this.#api.POST("/v1/contexts/search", { body: search, ...cancellable(options) }));
  }

  /** What a search finds as one text, within a budget of tokens. */
  pack(pack: Pack, options: Cancellable = {}): Promise<PackResponse> {
    return data(this.#api.POST("/v1/contexts/pack", { body: pack, ...cancellable(options) }));
  }

  retryEmbeddings(which: RetryEmbeddings = {}, options: Repeatable = {}): Promise<Retried> {
    const params = { header: named(options) };
    return data(this.#api.POST("/v1/contexts/retry-embeddings", { body: which, params, ...cancellable(options) }));
  }

  /**
   * Stores any number of contexts from a stream. Look at `failed` of the answer. An array, or a function that returns a
   * fresh iterable, is sent again after a failure; nothing is stored twice by that. No line may take 25 seconds to make: the
   * service ends an import that is silent.
   */
  import(lines: Lines | (() => Lines), options: ImportOptions = {}): Promise<ImportAnswer> {
    return this.#bulk.import(lines, options);
  }

  /** All contexts of one moment, oldest first, however many; goes on by itself when the connection breaks. */
  export(options: ExportOptions = {}): AsyncGenerator<ContextLine, void, undefined> {
    return this.#bulk.export(options);
  }
}

function conditional(options: Conditional): { "If-Match"?: string } {
  if (options.ifVersion === undefined) return {};
  return { "If-Match": options.ifVersion === "*" ? "*" : `"${options.ifVersion}"` };
}

function waiting(options: WriteOptions): { wait?: "ready" } {
  return options.waitUntilReady ? { wait: "ready" } : {};
}
