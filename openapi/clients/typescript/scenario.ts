// What every generated client has to be able to do, here with the types of openapi-typescript and the calls of
// openapi-fetch, and nothing of ours around them.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

type Problem = components["schemas"]["ProblemDetails"];

const { CONTEXT_API_URL: baseUrl, CONTEXT_API_KEY: key } = process.env;
assert(baseUrl && key);
const userId = randomUUID();
const api = createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${key}` } });

function note(content: string, more: Partial<components["schemas"]["ContextInput"]> = {}) {
  return { user_id: userId, context_type: "note", content, ...more };
}

function done(step: string) {
  console.log(`done: ${step}`);
}

// --- create

const created = await api.POST("/v1/contexts", { body: note("The okapi lives in the rain forest.", { metadata: { source: "book" } }) });
assert(created.data);
assert.equal(created.response.status, 201);
assert.equal(created.data.version, 1);
assert.equal(created.data.text, "The okapi lives in the rain forest.");
assert.equal(created.data.metadata["source"], "book");
done("create");

// --- upsert

const first = await api.POST("/v1/contexts", { body: note("Zebras run.", { key: "zebra" }) });
const second = await api.POST("/v1/contexts", { body: note("Zebras run fast.", { key: "zebra" }) });
assert(first.data && second.data);
assert.deepEqual([first.response.status, second.response.status], [201, 200]);
assert.equal(second.data.id, first.data.id);
assert.equal(second.data.version, 2);
done("upsert");

// --- search

const search = { query: "okapi", mode: "keyword", user_id: userId, filter: { "metadata.source": "book" }, limit: 3 } as const;
const found = await api.POST("/v1/contexts/search", { body: search });
assert(found.data);
assert.deepEqual(found.data.data.map((hit) => hit.context.id), [created.data.id]);
assert(found.data.data[0] && found.data.data[0].score > 0);
assert.deepEqual(found.data.degraded, []);
done("search");

// --- pack

const packed = await api.POST("/v1/contexts/pack", {
  body: { query: "okapi", mode: "keyword", user_id: userId, budget: { max_tokens: 200 } },
});
assert(packed.data);
assert.match(packed.data.text, /rain forest/);
assert(packed.data.tokens > 0 && packed.data.tokens <= 200);
assert.equal(packed.data.citations[0]?.context_id, created.data.id);
done("pack");

// --- page through

const batch = await api.POST("/v1/contexts/batch", {
  body: { operations: [1, 2, 3, 4, 5].map((n) => ({ op: "create" as const, context: note(`Page ${n}.`, { context_type: "page" }) })) },
});
assert.deepEqual(batch.data?.results.map((result) => result.status), [201, 201, 201, 201, 201]);
const seen: string[] = [];
let pages = 0;
let cursor: string | null = null;
do {
  const query: { user_id: string; context_type: string; limit: number; cursor?: string } = { user_id: userId, context_type: "page", limit: 2 };
  if (cursor !== null) query.cursor = cursor;
  const { data: page } = await api.GET("/v1/contexts", { params: { query } });
  assert(page);
  seen.push(...page.data.map((context) => context.text));
  pages += 1;
  cursor = page.next_cursor;
  assert.equal(page.has_more, cursor !== null);
} while (cursor !== null);
assert.equal(pages, 3);
assert.deepEqual(seen, ["Page 5.", "Page 4.", "Page 3.", "Page 2.", "Page 1."]);
done("page");

// --- conflict

function code(answer: { error?: Problem | undefined }): Problem["code"] | undefined {
  return answer.error?.code;
}

const path = { id: first.data.id };
const stale = await api.PATCH("/v1/contexts/{id}", { params: { path, header: { "If-Match": '"1"' } }, body: { content: "Late." } });
assert.equal(stale.response.status, 412);
assert.equal(code(stale), "precondition_failed");
const fresh = await api.PATCH("/v1/contexts/{id}", { params: { path, header: { "If-Match": '"2"' } }, body: { content: "In time." } });
assert.equal(fresh.data?.version, 3);

const header = { "Idempotency-Key": randomUUID() };
const once = await api.POST("/v1/contexts", { params: { header }, body: note("Once.") });
const again = await api.POST("/v1/contexts", { params: { header }, body: note("Once.") });
const other = await api.POST("/v1/contexts", { params: { header }, body: note("Another.") });
assert(once.data);
assert.equal(again.data?.id, once.data.id);
assert.equal(other.response.status, 422);
assert.equal(code(other), "idempotency_key_reused");
done("conflict");

// --- errors

const missing = await api.GET("/v1/contexts/{id}", { params: { path: { id: randomUUID() } } });
assert.equal(code(missing), "context_not_found");
assert.equal(missing.error?.status, 404);
const wrong = await api.POST("/v1/contexts", { body: note("Wrong.", { ttl_seconds: 0 }) });
assert.equal(code(wrong), "invalid_request");
assert.equal(wrong.error?.errors?.[0]?.pointer, "/ttl_seconds");
const stranger = await api.GET("/v1/usage", { headers: { Authorization: "Bearer ctx_nobody" } });
assert.equal(code(stranger), "invalid_api_key");
done("errors");

// --- import

const lines = [note("First line.", { key: "line-1" }), note("Second line.", { ttl_seconds: 0 }), note("Third line.")];
const imported = await api.POST("/v1/contexts/import", {
  params: { header: { "Idempotency-Key": randomUUID() } },
  headers: { "Content-Type": "application/x-ndjson" },
  body: lines.map((line) => `${JSON.stringify(line)}\n`).join(""),
  bodySerializer: (body) => body,
});
assert(imported.data);
assert.deepEqual([imported.data.created, imported.data.failed, imported.data.next_line], [2, 1, 4]);
assert.equal(imported.data.errors[0]?.line, 2);
assert.equal(imported.data.errors[0].error.code, "invalid_request");
done("import");

// --- export

const exported = await api.GET("/v1/contexts/export", { params: { query: { user_id: userId } }, parseAs: "stream" });
assert(exported.data && exported.response.headers.get("Context-As-Of"));
const counted = await api.POST("/v1/contexts/count", { body: { user_id: userId } });
let text = "";
for await (const chunk of exported.data.pipeThrough(new TextDecoderStream())) text += chunk;
const ids = text.trimEnd().split("\n").map((line) => (JSON.parse(line) as { id: string }).id);
assert.equal(ids.length, counted.data?.count);
assert.equal(ids.length, 10);
assert(ids.includes(created.data.id));
done("export");
