/** The names under which the document's types are known here. */

import type { components, paths } from "./generated/schema.js";

type Schemas = components["schemas"];

export type Json = Schemas["Json"];
export type NewContext = Schemas["ContextInput"];
export type Context = Schemas["Context"];
export type ContextPatch = Schemas["ContextPatch"];
export type ContextVersion = Schemas["ContextVersion"];
export type Filter = Schemas["Filter"];
export type Search = Schemas["Search"];
export type SearchResponse = Schemas["SearchResponse"];
export type Hit = Schemas["Hit"];
export type Pack = Schemas["Pack"];
export type PackResponse = Schemas["PackResponse"];
export type Batch = Schemas["Batch"];
export type BatchOperation = Schemas["BatchOperationInput"];
export type BatchResult = Schemas["BatchItemAnswer"];
export type Count = Schemas["Count"];
export type ImportAnswer = Schemas["ImportAnswer"];
export type RetryEmbeddings = Schemas["RetryEmbeddings"];
export type Retried = Schemas["Retried"];
export type Operation = Schemas["Operation"];
export type ApiKeyInfo = Schemas["ApiKeyInfo"];
export type CreateApiKey = Schemas["CreateApiKey"];
export type CreatedApiKey = Schemas["CreatedApiKey"];
export type RotateApiKey = Schemas["RotateApiKey"];
export type Tenant = Schemas["Tenant"];
export type CreateTenant = Schemas["CreateTenant"];
export type AuditEntry = Schemas["AuditEntry"];
export type EmbeddingSpace = Schemas["EmbeddingSpace"];
export type CreateEmbeddingSpace = Schemas["CreateEmbeddingSpace"];
export type ChangeEmbeddingSpace = Schemas["ChangeEmbeddingSpace"];
export type ActivateEmbeddingSpace = Schemas["ActivateEmbeddingSpace"];
export type CompareEmbeddingSpace = Schemas["CompareEmbeddingSpace"];
export type Comparison = Schemas["Comparison"];
export type SpaceFailure = Schemas["SpaceFailure"];
export type Usage = Schemas["Usage"];
export type HealthReport = Schemas["HealthReport"];

/** A line of an import or an export: what is written, and what the service had made of it. */
export type ContextLine = NewContext & {
  id?: string;
  version?: number;
  created_at?: string;
  updated_at?: string;
  text_given?: boolean;
};

type Query<Path extends keyof paths> = paths[Path] extends { get: { parameters: { query?: infer Q } } }
  ? NonNullable<Q>
  : never;

/** A filter is given as it is, not as text. */
type WithFilter<Q> = Omit<Q, "filter"> & { filter?: Filter };

export type ListOptions = WithFilter<Query<"/v1/contexts">>;
export type ExportOptions = WithFilter<Query<"/v1/contexts/export">> & Cancellable;

export interface Cancellable {
  /** Gives the request up. */
  signal?: AbortSignal;
}

export interface Paged extends Cancellable {
  /** Entries per page. */
  limit?: number;
  /** The `next_cursor` of a page: goes on behind it. */
  cursor?: string;
}

export interface WaitOptions extends Cancellable {
  /**
   * After how long a `StillRunningError` is thrown; ten minutes when left out, `Infinity` for never. What is asked then is
   * still waited for.
   */
  timeoutMs?: number;
}

export interface Repeatable extends Cancellable {
  /** Your name for this one write, so that you can send it again yourself. Left out: each call has one of its own. */
  idempotencyKey?: string;
}

export interface Conditional extends Cancellable {
  /** Only if it is in this version; `"*"`: only if it exists. */
  ifVersion?: number | "*";
}

export interface WriteOptions extends Conditional {
  /** Answers when the context is found by its meaning, too. */
  waitUntilReady?: boolean;
}

export interface CreateOptions extends WriteOptions, Repeatable {
  /** Only if the user has no context of this `key`. */
  ifNew?: boolean;
}

export interface ImportOptions extends Repeatable {
  /** Which line of the whole the first one is; 1 when left out. */
  firstLine?: number;
}
