/** The life of contexts. */

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { createRequire } from "node:module";
import { test } from "node:test";
import { ApiError, type BatchOperation, isApiError, type Pages } from "context-api-client";
import { baseUrl, connect, newUser } from "./support.js";

const api = connect();

async function failure(call: Promise<unknown>): Promise<ApiError> {
  const error: unknown = await call.then(
    () => assert.fail("it should have failed"),
    (error: unknown) => error,
  );
  assert(isApiError(error), String(error));
  return error;
}

async function secondPage(pages: Pages<unknown>): Promise<string> {
  for await (const page of pages.byPage()) return page.next_cursor ?? assert.fail("it has one page");
  return assert.fail("it has no page");
}

test("has the version of the service", async () => {
  const { version } = createRequire(import.meta.url)("context-api-client/package.json") as { version: string };
  const health = (await (await fetch(`${baseUrl}/health`)).json()) as { version: string };
  assert.equal(version, health.version);
});

test("writes, reads and changes", async () => {
  const user = newUser();
  const note = { user_id: user, context_type: "note", content: { body: "Tapirs swim." }, metadata: { source: "book" } };
  const made = await api.contexts.create(note);
  assert.deepEqual([made.version, made.text, made.metadata], [1, "Tapirs swim.", { source: "book" }]);

  const patched = await api.contexts.patch(made.id, { metadata: { source: null, seen: true } }, { ifVersion: 1 });
  assert.deepEqual([patched.version, patched.metadata], [2, { seen: true }]);
  const versions = [];
  for await (const old of api.contexts.versions(made.id)) versions.push(old.context.version);
  assert.deepEqual(versions, [1]);
  assert.equal((await api.contexts.get(made.id, { as_of: made.updated_at })).version, 1);

  assert.equal((await api.contexts.replace(made.id, { ...note, content: "Tapirs dive." })).text, "Tapirs dive.");
  await api.contexts.delete(made.id, { ifVersion: 3 });
  assert.equal((await failure(api.contexts.get(made.id))).code, "context_not_found");
  assert.equal((await api.contexts.restore(made.id, { version: 1 })).text, "Tapirs swim.");
  assert.equal(await api.contexts.count({ user_id: user }), 1);
  await api.contexts.delete(made.id, { purge: true });
  assert.equal(await api.contexts.count({ user_id: user }), 0);
});

test("finds and packs", async () => {
  const user_id = newUser();
  for (const [content, source] of [["The quokka smiles.", "book"], ["The quokka naps.", "film"]] as const) {
    await api.contexts.create({ user_id, context_type: "note", content, metadata: { source } }, { waitUntilReady: true });
  }
  const found = await api.contexts.search({ query: "quokka", user_id, filter: { "metadata.source": { $in: ["film"] } } });
  assert.deepEqual(found.data.map((hit) => hit.context.text), ["The quokka naps."]);
  assert.deepEqual(found.degraded, []);
  const packed = await api.contexts.pack({ query: "quokka", user_id, budget: { max_tokens: 100 } });
  assert.match(packed.text, /smiles/);
  assert.match(packed.text, /naps/);
  assert.equal(packed.citations.length, 2);
});

test("pages through", async () => {
  const user_id = newUser();
  const operations: BatchOperation[] = [0, 1, 2, 3, 4].map((content) => ({
    op: "create",
    context: { user_id, context_type: "page", content, text: "" },
  }));
  const results = await api.contexts.batch({ operations });
  assert.deepEqual(results.map((result) => result.status), [201, 201, 201, 201, 201]);
  const listed = api.contexts.list({ user_id, limit: 2 });
  const seen = [];
  for await (const context of listed) seen.push(context.content);
  assert.deepEqual(seen, [4, 3, 2, 1, 0]);
  const sizes = [];
  for await (const page of listed.byPage()) sizes.push(page.data.length);
  assert.deepEqual(sizes, [2, 2, 1]);
  const cursor = await secondPage(listed);
  const rest = [];
  for await (const context of api.contexts.list({ user_id, limit: 2, cursor })) rest.push(context.content);
  assert.deepEqual(rest, [2, 1, 0]);
  const late = [];
  for await (const context of api.contexts.list({ user_id, filter: { content: { $gte: 3 } } })) late.push(context.content);
  assert.deepEqual(late, [4, 3]);
});

test("tells errors apart", async () => {
  const note = { user_id: newUser(), context_type: "note", content: "one", text: "" };
  const made = await api.contexts.create(note);
  const stale = await failure(api.contexts.patch(made.id, { content: "two" }, { ifVersion: 7 }));
  assert.deepEqual([stale.status, stale.code], [412, "precondition_failed"]);
  assert(stale.requestId);

  const invalid = await failure(api.contexts.create({ ...note, ttl_seconds: 0 }));
  assert.equal(invalid.code, "invalid_request");
  assert.deepEqual(invalid.fields.map((field) => field.pointer), ["/ttl_seconds"]);

  const idempotencyKey = randomUUID();
  const first = await api.contexts.create(note, { idempotencyKey });
  assert.equal((await api.contexts.create(note, { idempotencyKey })).id, first.id);
  const reused = await failure(api.contexts.create({ ...note, content: "b" }, { idempotencyKey }));
  assert.equal(reused.code, "idempotency_key_reused");

  const taken = await failure(api.contexts.create({ ...note, key: "k" }, { ifVersion: "*" }));
  assert.equal(taken.code, "precondition_failed");
  assert.equal((await failure(connect({ apiKey: "ctx_nobody" }).usage())).status, 401);
});

test("reaches what is around", async () => {
  const user_id = newUser();
  const made = await api.apiKeys.create({ name: "sdk", scopes: ["read"], user_id });
  const keys = [];
  for await (const key of api.apiKeys.list()) keys.push(key.id);
  assert(keys.includes(made.id));
  await api.apiKeys.revoke(made.id);
  assert.equal((await api.usage()).embedding.failed, 0);
  const erasure = await api.operations.eraseUser(user_id);
  assert.equal((await api.operations.wait(erasure.id)).status, "succeeded");
  const entries = [];
  for await (const entry of api.auditLog.list({ target_id: made.id })) entries.push(entry.action);
  assert(entries.length > 0);
  const others = [];
  for await (const key of api.apiKeys.list({ cursor: await secondPage(api.apiKeys.list({ limit: 1 })) })) others.push(key.id);
  assert.deepEqual(others, keys.slice(1));
  const tenants = [];
  for await (const tenant of api.tenants.list()) tenants.push(tenant.name);
  assert(tenants.includes("default"));
  assert.deepEqual((await api.embeddingSpaces.list()).map((space) => space.status), ["active"]);
});
