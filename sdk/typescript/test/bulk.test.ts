/** Import and export. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { ConnectionError, type ContextLine } from "context-api-client";
import { connect, Faulty, newUser, standStill } from "./support.js";

/** About 30 MB in all. */
const MANY = 3_000;
const NUMBERS = 2_000;
/** Lines that were made and are not stored yet: what the service works on, and what is in the buffers of the system. */
const AHEAD_MAX = 1_500;

const api = connect();

/** Without text, so that the service has nothing to embed. */
function* lines(user_id: string, count: number, size = 1): Generator<ContextLine> {
  for (let n = 0; n < count; n += 1) {
    yield { user_id, context_type: "line", key: `k${n}`, content: new Array<number>(size).fill(n), text: "" };
  }
}

async function exported(user_id: string): Promise<ContextLine[]> {
  const all = [];
  for await (const line of api.contexts.export({ user_id })) all.push(line);
  return all;
}

test("streams both ways, and neither ahead of the other end", async () => {
  const user_id = newUser();
  let made = 0;
  let ahead = 0;
  async function* watched(): AsyncGenerator<ContextLine> {
    for (const line of lines(user_id, MANY, NUMBERS)) {
      made += 1;
      if (made % 250 === 0) ahead = Math.max(ahead, made - (await api.contexts.count({ user_id })));
      yield line;
    }
  }
  const answer = await api.contexts.import(watched());
  assert.deepEqual([answer.created, answer.failed, answer.next_line], [MANY, 0, MANY + 1]);
  assert(ahead < AHEAD_MAX, `${ahead} lines ahead`);
  let next = 0;
  for await (const line of api.contexts.export({ user_id })) {
    assert.equal((line.content as number[])[0], next);
    next += 1;
  }
  assert.equal(next, MANY);
});

test("tells which line is wrong", async () => {
  const user_id = newUser();
  const wrong = { user_id, context_type: "line", content: 1, ttl_seconds: 0 };
  const answer = await api.contexts.import([...lines(user_id, 2), wrong]);
  assert.deepEqual([answer.created, answer.failed], [2, 1]);
  assert.deepEqual([answer.errors[0]?.line, answer.errors[0]?.error.code], [3, "invalid_request"]);
});

test("what goes wrong with the caller's own lines is the caller's, and is not tried again", async () => {
  const mine = new Error("no more lines");
  let begun = 0;
  const broken = () => {
    begun += 1;
    return (function* () {
      yield* lines(newUser(), 2);
      throw mine;
    })();
  };
  await assert.rejects(api.contexts.import(broken), (error) => error === mine);
  assert.equal(begun, 1);
});

test("an import whose answer is lost is sent again", async () => {
  const user_id = newUser();
  // Without a key, so that only the name of the import keeps them from being stored twice.
  const source = () => [0, 1, 2].map((content) => ({ user_id, context_type: "line", content, text: "" }));
  const answer = await connect({ fetch: new Faulty("lost", 10).fetch }).contexts.import(source);
  assert.deepEqual([answer.created, answer.unchanged], [0, 3]);
  assert.equal(await api.contexts.count({ user_id }), 3);
});

test("lines that come slowly are not held back, and are no silence", async (t) => {
  const pass = standStill(t);
  async function* slow(): AsyncGenerator<ContextLine> {
    for (const line of lines(newUser(), 5)) {
      pass(2_000);
      yield line;
    }
  }
  const chunks: number[] = [];
  const service = async (request: Request): Promise<Response> => {
    assert(request.body);
    for await (const chunk of request.body.pipeThrough(new TextDecoderStream())) {
      request.signal.throwIfAborted();
      chunks.push(chunk.split("\n").length - 1);
    }
    return Response.json({ created: 5 });
  };
  const answer = await connect({ fetch: service, timeoutMs: 3_000 }).contexts.import(slow);
  assert.equal(answer.created, 5);
  // After 6 seconds, and in the end.
  assert.deepEqual(chunks, [3, 2]);
});

test("an import of which nothing comes is given up", async (t) => {
  const pass = standStill(t);
  async function* silent(): AsyncGenerator<ContextLine> {
    pass(4_000);
    yield* lines(newUser(), 1);
  }
  const service = async (request: Request): Promise<Response> => {
    await request.text();
    request.signal.throwIfAborted();
    return Response.json({ created: 1 });
  };
  await assert.rejects(connect({ fetch: service, timeoutMs: 3_000 }).contexts.import(silent()), ConnectionError);
});

test("an iterator is sent once", async () => {
  const network = new Faulty("refused");
  await assert.rejects(connect({ fetch: network.fetch }).contexts.import(lines(newUser(), 3)), ConnectionError);
  assert.equal(network.requests.length, 1);
});

test("an export goes on where it broke off", async () => {
  const user_id = newUser();
  await api.contexts.import([...lines(user_id, 50)]);
  const network = new Faulty(3_000, 4_000);
  const seen: unknown[] = [];
  for await (const line of connect({ fetch: network.fetch }).contexts.export({ user_id })) {
    // After the moment of the export.
    if (seen.length === 0) await api.contexts.create({ user_id, context_type: "line", content: "late", text: "" });
    seen.push(line.content);
  }
  assert.deepEqual(seen, Array.from({ length: 50 }, (_, n) => [n]));
  assert.equal(network.requests.length, 3);
});

test("an export may be left early", async () => {
  const user_id = newUser();
  await api.contexts.import([...lines(user_id, 50)]);
  for await (const line of api.contexts.export({ user_id })) {
    assert.deepEqual(line.content, [0]);
    break;
  }
});

test("an import of an export changes nothing", async () => {
  const user_id = newUser();
  await api.contexts.import([...lines(user_id, 20)]);
  const answer = await api.contexts.import(api.contexts.export({ user_id }));
  assert.deepEqual([answer.created, answer.updated, answer.unchanged, answer.failed], [0, 0, 20, 0]);
  assert.equal((await exported(user_id)).length, 20);
});
