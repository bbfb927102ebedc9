/** Makes a test of the examples in each of some guides: `node examples.mjs readme.test.ts README.md…`. */

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";

const ADDRESS = '"http://127.0.0.1:8000"';
const isImport = (line) => line.startsWith("import ");
const [test, ...guides] = process.argv.slice(2);
const imports = new Set([
  'import { randomUUID } from "node:crypto";',
  'import { test } from "node:test";',
  'import { apiKey, baseUrl } from "./support.js";',
]);
const tests = [];
for (const guide of guides) {
  const examples = [...readFileSync(guide, "utf8").matchAll(/^```ts\n(.*?)^```$/gms)].map(([, example]) => example);
  assert(examples.length > 0, `${guide} has no examples`);
  // They follow one another, as a reader would try them.
  const lines = examples.join("\n").replaceAll(ADDRESS, "baseUrl").split("\n");
  lines.filter(isImport).forEach((line) => imports.add(line));
  tests.push(`test("the examples of ${guide}", async () => {
{
${lines.filter((line) => !isImport(line)).join("\n")}
}
});
`);
}
// What the guides take for granted.
const given = `const [url, key] = [baseUrl, apiKey];
const user_id = randomUUID();
`;
writeFileSync(test, [...imports, given, ...tests].join("\n"));
