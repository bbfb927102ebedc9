// Whether all parts of a schema are bounded: text by its length, its pattern or its values, numbers and lists by their limits.
// A schema may refer to itself, so each is looked at once.

const isOf = (schema, type) => [schema.type].flat().includes(type);

// What one of several schemas says counts when each of them says it.
const has = (schema, ...names) =>
  names.some((name) => schema[name] !== undefined) || (schema.anyOf?.every((choice) => has(choice, ...names)) ?? false);

function missing(schema) {
  const found = [];
  if (isOf(schema, "string") && !has(schema, "maxLength", "pattern", "enum", "const", "format")) found.push("maxLength");
  for (const type of ["integer", "number"]) {
    if (!isOf(schema, type) || has(schema, "enum", "const")) continue;
    if (!has(schema, "minimum", "exclusiveMinimum")) found.push("minimum");
    if (!has(schema, "maximum", "exclusiveMaximum")) found.push("maximum");
  }
  if (isOf(schema, "array") && !has(schema, "maxItems")) found.push("maxItems");
  return found;
}

function* walk(schema, path, seen) {
  if (schema === null || typeof schema !== "object" || seen.has(schema)) return;
  seen.add(schema);
  for (const bound of missing(schema)) yield { message: `has no ${bound}`, path };
  for (const [name, part] of Object.entries(schema.properties ?? {})) yield* walk(part, [...path, "properties", name], seen);
  for (const name of ["items", "additionalProperties"]) yield* walk(schema[name], [...path, name], seen);
  // Beside a type they only narrow down what is looked at here.
  if (schema.type !== undefined) return;
  for (const name of ["anyOf", "oneOf", "allOf"]) {
    for (const [number, part] of (schema[name] ?? []).entries()) yield* walk(part, [...path, name, number], seen);
  }
}

export default (schema, _options, context) => [...walk(schema, context.path, new Set())];
