/** The way in: one object for one service and one key. */

import { ApiKeys, AuditLog, Tenants } from "./admin.js";
import { type Api, cancellable, createApi, data } from "./api.js";
import { Bulk } from "./bulk.js";
import { Contexts } from "./contexts.js";
import { Operations } from "./operations.js";
import { EmbeddingSpaces } from "./spaces.js";
import { Transport, type TransportOptions } from "./transport.js";
import type { Cancellable, Usage } from "./types.js";

export interface ContextApiOptions extends TransportOptions {
  /** For instance `http://127.0.0.1:8000`. */
  baseUrl: string;
}

export class ContextApi {
  readonly contexts: Contexts;
  readonly operations: Operations;
  readonly apiKeys: ApiKeys;
  readonly tenants: Tenants;
  readonly auditLog: AuditLog;
  readonly embeddingSpaces: EmbeddingSpaces;
  /** Every route as the document has it, for what the methods do not offer; it is sent in the same way. */
  readonly raw: Api;

  constructor(options: ContextApiOptions) {
    const baseUrl = options.baseUrl.replace(/\/+$/, "");
    const transport = new Transport(options);
    this.raw = createApi(transport, baseUrl);
    this.contexts = new Contexts(this.raw, new Bulk(transport, baseUrl));
    this.operations = new Operations(this.raw);
    this.apiKeys = new ApiKeys(this.raw);
    this.tenants = new Tenants(this.raw);
    this.auditLog = new AuditLog(this.raw);
    this.embeddingSpaces = new EmbeddingSpaces(this.raw);
  }

  /** What is stored, and what waits for its embedding. */
  usage(options: Cancellable = {}): Promise<Usage> {
    return data(this.raw.GET("/v1/usage", cancellable(options)));
  }

}
