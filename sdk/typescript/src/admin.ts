/** For admins and operators: keys, tenants, the audit log. */

import { type Api, cancellable, data, named } from "./api.js";
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

  /** The answer alone has the secret. */
  create(key: CreateApiKey, options: Repeatable = {}): Promise<CreatedApiKey> {
    return data(this.#api.POST("/v1/api-keys", { body: key, params: { header: named(options) }, ...cancellable(options) }));
  }

  rotate(id: string, how: RotateApiKey = {}, options: Repeatable = {}): Promise<CreatedApiKey> {
    const params = { path: { id }, header: named(options) };
    return data(this.#api.POST("/v1/api-keys/{id}/rotate", { body: how, params, ...cancellable(options) }));
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
