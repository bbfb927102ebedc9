#!/usr/bin/env python3
"""Prints the OpenAPI document as generators of clients can read it.

The document says precisely what the service takes, for those who check requests by it. Some generators stumble over how it
says so: of an object with a rule between its fields they see the rule and lose the fields, and a value that may be any
JSON, whose parts may be any JSON, is a circle to them. Here such rules are left out. So this document allows more requests;
the service judges them as ever. Defaults are left out, too: clients would send them, or hold that answers always have them, and
what is not sent is the service's to choose.

usage: openapi/clients/plain.py openapi/openapi.json > plain.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

#: Schemas for any value.
ANY_JSON = ("Json", "JsonCondition")
LINES = "application/x-ndjson"


def plain(document: dict[str, Any]) -> dict[str, Any]:
    """Changes the document and returns it."""
    schemas = document["components"]["schemas"]
    for name in ANY_JSON:
        schemas[name] = {"description": schemas[name]["description"]}
    for schema in schemas.values():
        if "properties" in schema:
            # The fields say what there is; a union beside them is a rule between them.
            schema.pop("anyOf", None)
        if "patternProperties" in schema:
            del schema["patternProperties"]
            schema["additionalProperties"] = True
    loosen(schemas)
    for operation in operations(document):
        for parameter in operation.get("parameters", []):
            make_text(parameter)
            parameter["schema"].pop("default", None)
        lines = operation["responses"].get("200", {}).get("content", {}).get(LINES)
        if lines is not None:
            # Else they would be read as one JSON value.
            lines["schema"]["format"] = "binary"
    return document


def loosen(schema: Any) -> None:
    """An object of which nothing is said may hold anything; to some generators it is an empty one. And between the least and
    the largest double one of them computes the distance, which is none."""
    if isinstance(schema, list):
        for part in schema:
            loosen(part)
    elif isinstance(schema, dict):
        kind = schema.get("type")
        if (kind == "object" or isinstance(kind, list) and "object" in kind) and "properties" not in schema:
            schema.setdefault("additionalProperties", True)
        if "type" in schema:
            schema.pop("default", None)
        for bound in ("minimum", "maximum"):
            if isinstance(schema.get(bound), float) and abs(schema[bound]) > 1e300:
                del schema[bound]
        for part in schema.values():
            loosen(part)


def operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All of them."""
    for path in document["paths"].values():
        for value in path.values():
            if isinstance(value, dict) and "responses" in value:
                yield value


def make_text(parameter: dict[str, Any]) -> None:
    """Tags of versions are one text or another, and a filter is JSON as text: both are text."""
    if "content" in parameter:
        del parameter["content"]
        parameter["schema"] = {"type": "string"}
    if parameter["in"] == "header":
        parameter["schema"].pop("anyOf", None)


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        json.dump(plain(json.load(file)), sys.stdout, ensure_ascii=False)
