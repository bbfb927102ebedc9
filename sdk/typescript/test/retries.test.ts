/** What is sent again, and what is not. */

import assert from "node:assert/strict";
import { once } from "node:events";
import * as http from "node:http";
import { type AddressInfo, createServer } from "node:net";
import { test } from "node:test";
import { ConnectionError, type ContextApi, isApiError, SecretLostError, StillRunningError, UnexpectedAnswerError } from "context-api-client";
import { busy, connect, type Fault, Faulty, newUser } from "./support.js";

function faulty(...faults: Fault[]) {
  const network = new Faulty(...faults);
  return { api: connect({ fetch: network.fetch }), network };
}

const note = () => ({ user_id: newUser(), context_type: "note", content: "once", text: "" });

test("a write whose answer is lost is done once", async () => {
  const { api, network } = faulty("lost", 10);
  const body = note();
  const made = await api.contexts.create(body);
  assert.equal(await api.contexts.count({ user_id: body.user_id }), 1);
  const names = new Set(network.requests.slice(0, 3).map((request) => request.headers.get("idempotency-key")));
  assert.equal(names.size, 1);
  assert(!names.has(null));
  assert.equal(made.version, 1);
});

test("an error that breaks off is asked for again", async () => {
  const { api, network } = faulty(5);
  await assert.rejects(api.contexts.get(newUser()), (error) => isApiError(error, "context_not_found"));
  assert.equal(network.requests.length, 2);
});

test("gives up after a while", async () => {
  const { api, network } = faulty("refused", "refused", "refused", "refused", "refused");
  await assert.rejects(api.usage(), ConnectionError);
  assert.equal(network.requests.length, 4);
});

test("waits as long as it is asked", async () => {
  const { api, network } = faulty(busy(429, "rate_limited", 1));
  const began = performance.now();
  await api.usage();
  assert(performance.now() - began >= 1000);
  assert.equal(network.requests.length, 2);
});

test("does not wait for ever", async () => {
  const { api, network } = faulty(busy(503, "database_unavailable", 3600));
  await assert.rejects(api.usage(), (error) => isApiError(error, "database_unavailable") && error.retryAfterSeconds === 3600);
  assert.equal(network.requests.length, 1);
});

test("a conditional change is sent again only if it was not done", async () => {
  const made = await connect().contexts.create(note());
  const { api, network } = faulty("refused", busy(503, "database_busy", 0), "lost");
  await assert.rejects(api.contexts.patch(made.id, { content: "twice" }, { ifVersion: 1 }), ConnectionError);
  assert.equal(network.requests.length, 3);
});

test("a delete whose answer is lost has worked", async () => {
  const made = await connect().contexts.create(note());
  const { api, network } = faulty("lost");
  await api.contexts.delete(made.id);
  assert.equal(network.requests.length, 2);
});

test("a key whose secret is lost is no key", async () => {
  const lost = async (call: Promise<unknown>): Promise<string> => {
    const error = await call.then(() => assert.fail("it should have failed"), (error: unknown) => error);
    assert(error instanceof SecretLostError, String(error));
    assert.match(error.message, new RegExp(error.apiKey.id));
    return error.apiKey.id;
  };
  const user_id = newUser();
  const made = await lost(faulty("lost").api.apiKeys.create({ name: "sdk", scopes: ["read"], user_id }));
  const rotated = await lost(faulty("lost").api.apiKeys.rotate(made));
  assert.notEqual(rotated, made);
  // As it says.
  const usable = await connect().apiKeys.rotate(rotated);
  assert(usable.key);
  assert.equal(await connect({ apiKey: usable.key }).contexts.count({ user_id }), 0);
  await connect().apiKeys.revoke(usable.id);
});

test("a redirect is no success, and is not followed", async () => {
  const asked: string[] = [];
  const elsewhere = http.createServer((request, response) => {
    asked.push(`${request.method} ${request.url}`);
    response.writeHead(302, { location: "/elsewhere" }).end();
    request.resume();
  });
  await once(elsewhere.listen(0, "127.0.0.1"), "listening");
  const { port } = elsewhere.address() as AddressInfo;
  const api = connect({ baseUrl: `http://127.0.0.1:${port}` });
  const wrong = (error: unknown) =>
    error instanceof UnexpectedAnswerError && error.message.endsWith("302, to /elsewhere; correct baseUrl");
  try {
    await assert.rejects(api.contexts.delete("1"), wrong);
    await assert.rejects(api.contexts.create(note()), wrong);
    await assert.rejects(api.contexts.import([note()]), wrong);
    await assert.rejects(api.contexts.export().next(), wrong);
  } finally {
    elsewhere.closeAllConnections();
    elsewhere.close();
  }
  assert.deepEqual(asked, [
    "DELETE /v1/contexts/1",
    "POST /v1/contexts",
    "POST /v1/contexts/import",
    "GET /v1/contexts/export",
  ]);
});

test("an answer of somebody else is an error of this package", async () => {
  const { api } = faulty(new Response(null, { status: 202, headers: { "content-length": "0" } }));
  await assert.rejects(api.usage(), UnexpectedAnswerError);
});

test("what has not changed is no error", async () => {
  const api = connect();
  const { id } = await api.contexts.create(note());
  const params = { path: { id }, header: { "If-None-Match": '"1"' } };
  assert.equal((await api.raw.GET("/v1/contexts/{id}", { params })).response.status, 304);
});

test("a name is sent only with writes", async () => {
  const { api, network } = faulty();
  await api.contexts.count({ user_id: newUser() });
  await api.contexts.search({ query: "nothing", user_id: newUser(), mode: "keyword" });
  assert.deepEqual(network.requests.map((request) => request.headers.get("idempotency-key")), [null, null]);
});

test("ends when it is asked to", async () => {
  await assert.rejects(connect().usage({ signal: AbortSignal.abort(new Error("enough")) }), /enough/);
});

test("ends in a pause when it is asked to, with the very reason", async (t) => {
  const acts: [Fault, (api: ContextApi, signal: AbortSignal) => Promise<unknown>][] = [
    [busy(503, "database_busy", 25), (api, signal) => api.usage({ signal })],
    [busy(503, "database_busy", 25), (api, signal) => api.contexts.import([note()], { signal })],
    [busy(503, "database_busy", 25), (api, signal) => api.contexts.export({ signal }).next()],
    [Response.json({ id: "1", status: "running" }), (api, signal) => api.operations.wait("1", { signal })],
  ];
  let pauses = () => {};
  // A pause is known by what ends it, and never ends by itself. All other timers are of streams and of Node.js.
  const real = globalThis.setTimeout;
  t.mock.method(globalThis, "setTimeout", (act: () => void, ms: number) => {
    if (act.name !== "end") return real(act, ms);
    queueMicrotask(pauses);
    return real(() => {}, 0);
  });
  for (const [fault, act] of acts) {
    for (const reason of ["enough", new Error("enough")]) {
      const { api, network } = faulty(fault instanceof Response ? fault.clone() : fault);
      const controller = new AbortController();
      pauses = () => controller.abort(reason);
      const ended = act(api, controller.signal).then(
        () => assert.fail("it should have ended"),
        (error: unknown) => error,
      );
      assert.equal(await ended, reason);
      assert.equal(network.requests.length, 1);
    }
  }
});

test("does not wait for ever for an operation", async () => {
  const ended = await connect().operations.eraseUser(newUser()).then(({ id }) => connect().operations.wait(id));
  const { api, network } = faulty(Response.json({ ...ended, status: "running", finished_at: null }));
  const late = (error: unknown) => error instanceof StillRunningError && error.operation.status === "running";
  await assert.rejects(api.operations.wait(ended.id, { timeoutMs: 0 }), late);
  // One that has ended has, however late it is asked.
  assert.equal((await api.operations.wait(ended.id, { timeoutMs: 0 })).status, "succeeded");
  assert.equal(network.requests.length, 2);
});

test("ends when no answer comes", async () => {
  const silent = createServer().listen(0, "127.0.0.1");
  await once(silent, "listening");
  const { port } = silent.address() as AddressInfo;
  const api = connect({ baseUrl: `http://127.0.0.1:${port}`, timeoutMs: 100, retries: 0 });
  await assert.rejects(api.usage(), ConnectionError);
  silent.close();
});
