/** Written by hand, hence compared with the document that everything else is made of. */

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { baseUrl } from "./support.js";

/** For people, proxies and browsers. */
const NOT_OFFERED = [
  "get /errors/{code}",
  "get /health",
  "get /health/live",
  "get /health/ready",
  "get /openapi.json",
  "get /v1/operations/{id}/events",
];
/** Streams, of which there are no generated calls. */
const BY_HAND = ["post /v1/contexts/import", "get /v1/contexts/export"];

test("every operation has a method", async () => {
  const document = (await (await fetch(`${baseUrl}/openapi.json`)).json()) as { paths: Record<string, object> };
  const operations = Object.entries(document.paths).flatMap(([path, item]) =>
    Object.keys(item).map((method) => `${method} ${path}`),
  );
  const dist = new URL("../node_modules/context-api-client/dist/", import.meta.url);
  const written = readdirSync(dist)
    .filter((file) => file.endsWith(".js"))
    .map((file) => readFileSync(new URL(file, dist), "utf8"))
    .join("\n");
  const missing = operations.filter((operation) => {
    const [method, path] = operation.split(" ");
    return !written.includes(`.${method?.toUpperCase()}("${path}"`);
  });
  assert.deepEqual(missing.sort(), [...NOT_OFFERED, ...BY_HAND].sort());
});
