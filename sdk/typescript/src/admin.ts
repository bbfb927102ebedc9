/** For admins and operators: keys, tenants, the audit log. */

import { type Api, cancellable, data, named } from "./api.js";
import { SecretLostError } from "./errors.js";
import { Pages } from "./pages.js";
import type {
  ApiKeyInfo,
  AuditEntry,
  Cancellable,
  CreateApiKey,
  CreatedApiKey,
  CreateTenant,
  Paged,
  Repeatable,
  RotateApiKey,
  Tenant,
} from "./types.js";

export class ApiKeys {
  readonly #api: Api;

  constructor(api: Api) {
    this.#api = api;
  }

  list(options: Paged = {}): Pages<ApiKeyInfo> {
    const { signal, ...rest } = options;
    return new Pages((cursor) => {
      const query = { ...rest, ...(cursor === undefined ? {} : { cursor }) };
      return data(this.#api.GET("/v1/api-keys", { params: { query }, ...cancellable({ signal }) }));
    });
  }

  /** The answer alone has the secret; throws a `SecretLostError` if that was in an answer that was lost. */
  create(key: CreateApiKey, options: Repeatable = {}): Promise<CreatedApiKey> {
    const params = { header: named(options) };
    return withSecret(data(this.#api.POST("/v1/api-keys", { body: key, params, ...cancellable(options) })));
  }

  /** Makes another key in its place; the old one holds for the overlap. Throws as `create` does. */
  rotate(id: string, how: RotateApiKey = {}, options: Repeatable = {}): Promise<CreatedApiKey> {
    const params = { path: { id }, header: named(options) };
    return withSecret(data(this.#api.POST("/v1/api-keys/{id}/rotate", { body: how, params, ...cancellable(options) })));
  }

  async revoke(id: string, options: Cancellable = {}): Promise<void> {
    await this.#api.DELETE("/v1/api-keys/{id}", { params: { path: { id } }, ...cancellable(options) });
  }
}

export class Tenants {
  readonly #api: Api;

  constructor(api: Api) {
    this.#api = api;
  }

  list(options: Paged = {}): Pages<Tenant> {
    const { signal, ...rest } = options;
    return new Pages((cursor) => {
      const query = { ...rest, ...(cursor === undefined ? {} : { cursor }) };
      return data(this.#api.GET("/v1/tenants", { params: { query }, ...cancellable({ signal }) }));
    });
  }

  create(tenant: CreateTenant, options: Repeatable = {}): Promise<Tenant> {
    return data(this.#api.POST("/v1/tenants", { body: tenant, params: { header: named(options) }, ...cancellable(options) }));
  }
}

export class AuditLog {
  readonly #api: Api;

  constructor(api: Api) {
    this.#api = api;
  }

  /** Newest first. */
  list(options: Paged & { target_id?: string } = {}): Pages<AuditEntry> {
    const { signal, ...rest } = options;
    return new Pages((cursor) => {
      const query = { ...rest, ...(cursor === undefined ? {} : { cursor }) };
      return data(this.#api.GET("/v1/audit-log", { params: { query }, ...cancellable({ signal }) }));
    });
  }
}

/** The service says a secret once: to a request that is repeated it says null. */
async function withSecret(call: Promise<CreatedApiKey>): Promise<CreatedApiKey> {
  const made = await call;
  if (made.key === null) throw new SecretLostError(made);
  return made;
}
