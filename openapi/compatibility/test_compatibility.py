"""That each way to break clients is found and named, and that what does not break them passes.

usage: python3 -m unittest discover --start-directory compatibility --top-level-directory ., from the folder openapi
"""

from __future__ import annotations

import copy
import unittest
from typing import Any, Callable

from .operations import breaks

SMALL = {
    "servers": [{"url": "/"}],
    "paths": {
        "/notes": {
            "post": {
                "operationId": "create_note",
                "tags": ["notes"],
                "security": [{"key": ["write"]}],
                "parameters": [
                    {"name": "wait", "in": "query", "schema": {"type": "string", "enum": ["ready", "stored"]}},
                    {"name": "filter", "in": "query", "content": {"application/json": {"schema": {"type": "object"}}}},
                ],
                "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/NewNote"}}}},
                "responses": {
                    "201": {
                        "headers": {"ETag": {"required": True, "schema": {"type": "string"}}},
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Note"}}},
                    },
                    "404": {"$ref": "#/components/responses/NotFound"},
                },
            },
        },
    },
    "components": {
        "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        "responses": {"NotFound": {"content": {"application/problem+json": {"schema": {"type": "object"}}}}},
        "schemas": {
            "NewNote": {
                "type": "object",
                "required": ["text"],
                "properties": {
                    "text": {"type": "string", "maxLength": 100, "minLength": 1, "pattern": "^[^x]*$"},
                    "weight": {"type": ["number", "null"], "minimum": 0, "default": 1},
                    "kind": {"type": "string", "enum": ["a", "b"]},
                    "parts": {"type": "array", "maxItems": 3, "items": {"$ref": "#/components/schemas/NewNote"}},
                    "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
                    "words": {"type": "array", "items": {"type": "string"}},
                    # The first reference that is followed; what stands beside the others is looked at all the same.
                    "first": {"$ref": "#/components/schemas/Size"},
                    "size": {"$ref": "#/components/schemas/Size", "default": 2},
                    "length": {"$ref": "#/components/schemas/Size"},
                    "labels": {"$ref": "#/components/schemas/Labels"},
                },
            },
            "Size": {"type": "integer", "minimum": 1, "default": 1},
            "Labels": {
                "type": "object",
                "patternProperties": {"^a": {"$ref": "#/components/schemas/Label"}, "^b": {"type": "string"}},
                "additionalProperties": False,
            },
            "Label": {"type": "object", "properties": {"text": {"type": "string"}}},
            "Area": {"type": "object", "properties": {"width": {"type": "integer"}}},
            "Other": {"type": "object", "properties": {"width": {"type": "integer"}}},
            "Note": {
                "type": "object",
                "required": ["id", "state", "unlisted"],
                "properties": {
                    "id": {"type": "string", "format": "uuid"},
                    "state": {"type": "string", "enum": ["new", "old"]},
                    "score": {"type": "number", "maximum": 1},
                    "lines": {"type": "integer", "default": 1},
                    "size": {"$ref": "#/components/schemas/Area"},
                    "space": {"anyOf": [{"$ref": "#/components/schemas/Area"}, {"type": "null"}]},
                    "counts": {"type": "object", "patternProperties": {"^n": {"type": "integer"}}},
                    "ranks": {"type": "object", "additionalProperties": {"type": "integer"}},
                },
            },
        },
    },
}

Change = Callable[[dict[str, Any]], Any]


def create(document: dict[str, Any]) -> dict[str, Any]:
    return document["paths"]["/notes"]["post"]


def sent(document: dict[str, Any]) -> dict[str, Any]:
    return document["components"]["schemas"]["NewNote"]


def got(document: dict[str, Any]) -> dict[str, Any]:
    return document["components"]["schemas"]["Note"]


def schemas(document: dict[str, Any]) -> dict[str, Any]:
    return document["components"]["schemas"]


def rename(document: dict[str, Any], old: str, new: str) -> None:
    schemas(document)[new] = schemas(document).pop(old)
    for schema in (sent(document), got(document)):
        for part in schema["properties"].values():
            for place in [part, *part.get("anyOf", [])]:
                if place.get("$ref") == f"#/components/schemas/{old}":
                    place["$ref"] = f"#/components/schemas/{new}"


def after(change: Change, document: dict[str, Any] = SMALL) -> list[str]:
    changed = copy.deepcopy(document)
    change(changed)
    return breaks(document, changed)


# All types but string.
REST = "array, boolean, null, number, object"

BREAKS: list[tuple[Change, str]] = [
    (lambda d: d["paths"].pop("/notes"), "operation create_note: POST /notes is gone"),
    (lambda d: create(d).update(operationId="make_note"), "operation create_note: is called `make_note` now"),
    (lambda d: create(d).update(security=[{"key": ["admin"]}]),
     "operation create_note: key with write is not enough any more"),
    (lambda d: create(d)["parameters"].pop(0), "operation create_note, query parameter `wait`: is gone"),
    (lambda d: create(d)["parameters"][0].update(required=True),
     "operation create_note, query parameter `wait`: is required now"),
    (lambda d: create(d)["parameters"][0]["schema"]["enum"].remove("stored"),
     "operation create_note, query parameter `wait`: the value `stored` is gone"),
    (lambda d: create(d)["parameters"].append({"name": "by", "in": "query", "required": True, "schema": {}}),
     "operation create_note, query parameter `by`: is new and required"),
    (lambda d: create(d)["parameters"].__setitem__(1, {"name": "filter", "in": "query", "schema": {"type": "object"}}),
     "operation create_note, query parameter `filter`: is written in another way (schema, content)"),
    (lambda d: create(d)["requestBody"].update(required=True), "operation create_note, body: is required now"),
    (lambda d: create(d).pop("requestBody"), "operation create_note, body: is gone"),
    (lambda d: create(d)["requestBody"]["content"].update({"application/json": None}) or
     create(d)["requestBody"]["content"].pop("application/json"),
     "operation create_note, body: application/json is gone"),
    (lambda d: create(d)["responses"].pop("404"), "operation create_note, answer 404: is gone"),
    (lambda d: d["components"]["responses"]["NotFound"].update(content={}),
     "operation create_note, answer 404: application/problem+json is gone"),
    (lambda d: create(d)["responses"]["201"]["headers"].pop("ETag"),
     "operation create_note, answer 201, header `ETag`: is gone"),
    (lambda d: create(d)["responses"]["201"]["headers"]["ETag"].pop("required"),
     "operation create_note, answer 201, header `ETag`: may be missing now"),
    (lambda d: sent(d)["properties"].pop("kind"), "request schema NewNote, property `kind`: is gone"),
    (lambda d: sent(d)["required"].append("kind"), "request schema NewNote, property `kind`: is required now"),
    (lambda d: sent(d)["properties"]["text"].update(maxLength=99),
     "request schema NewNote, property `text`: at most 99 characters now, at most 100 characters before (maxLength)"),
    (lambda d: sent(d)["properties"]["text"].update(minLength=2),
     "request schema NewNote, property `text`: at least 2 characters now, at least 1 characters before (minLength)"),
    (lambda d: sent(d)["properties"]["weight"].update(maximum=5),
     "request schema NewNote, property `weight`: at most 5 now, without this bound before (maximum)"),
    (lambda d: sent(d)["properties"]["text"].update(pattern="^[a-z]*$"),
     "request schema NewNote, property `text`: pattern is `^[a-z]*$` now, was `^[^x]*$`"),
    (lambda d: sent(d)["properties"]["weight"].update(type="number"),
     "request schema NewNote, property `weight`: takes no null any more"),
    (lambda d: sent(d)["properties"]["weight"].update(type=["integer", "null"]),
     "request schema NewNote, property `weight`: takes no number any more"),
    (lambda d: sent(d)["properties"]["weight"].update(default=2),
     "request schema NewNote, property `weight`: is `2` when left out, was `1`"),
    (lambda d: sent(d)["properties"]["kind"]["enum"].remove("b"),
     "request schema NewNote, property `kind`: the value `b` is gone"),
    (lambda d: sent(d)["properties"]["words"].update(items={"type": "integer"}),
     "request schema NewNote, property `words`, items: is integer now, was string"),
    (lambda d: sent(d).update(additionalProperties=False),
     "request schema NewNote: takes no further members any more"),
    (lambda d: sent(d)["properties"]["either"]["anyOf"].pop(),
     "request schema NewNote, property `either`, choice 2 of anyOf: is gone, or fits none any more"),
    (lambda d: sent(d)["properties"]["text"].update(anyOf=[{"pattern": "a"}]),
     "request schema NewNote, property `text`: has to fit one of several schemas now (anyOf)"),
    (lambda d: got(d)["properties"].pop("score"), "response schema Note, property `score`: is gone"),
    (lambda d: [got(d)["properties"].pop("state"), got(d)["required"].remove("state")],
     "response schema Note, property `state`: is gone"),
    (lambda d: got(d)["required"].remove("id"), "response schema Note, property `id`: may be missing now"),
    (lambda d: got(d)["required"].remove("unlisted"), "response schema Note, property `unlisted`: may be missing now"),
    (lambda d: got(d)["properties"]["id"].update(type=["string", "null"]),
     "response schema Note, property `id`: may be null now"),
    (lambda d: got(d)["properties"]["id"].pop("format"),
     "response schema Note, property `id`: format is `null` now, was `uuid`"),
    (lambda d: got(d)["properties"]["state"]["enum"].remove("old"),
     "response schema Note, property `state`: the value `old` is gone"),
    (lambda d: got(d)["properties"]["score"].pop("maximum"),
     "response schema Note, property `score`: without this bound now, at most 1 before (maximum)"),
    (lambda d: schemas(d)["Label"]["properties"].pop("text"), "request schema Label, property `text`: is gone"),
    (lambda d: schemas(d)["Labels"]["patternProperties"].pop("^b"), "request schema Labels, members like `^b`: are gone"),
    (lambda d: schemas(d)["Labels"]["patternProperties"].update({"^b": {"type": "integer"}}),
     "request schema Labels, members like `^b`: is integer now, was string"),
    (lambda d: schemas(d)["Label"].update(patternProperties={"^a": {"type": "string"}}),
     f"request schema Label, members like `^a`: takes no {REST} any more"),
    (lambda d: got(d)["properties"]["counts"]["patternProperties"]["^n"].update(type=["integer", "null"]),
     "response schema Note, property `counts`, members like `^n`: may be null now"),
    (lambda d: got(d)["properties"]["ranks"].update(patternProperties={"^n": {"type": "string"}}),
     "response schema Note, property `ranks`, members like `^n`: is string now, was integer"),
    (lambda d: sent(d)["properties"]["size"].update(default=3),
     "request schema NewNote, property `size`: is `3` when left out, was `2`"),
    (lambda d: sent(d)["properties"]["size"].pop("default"),
     "request schema NewNote, property `size`: is `1` when left out, was `2`"),
    (lambda d: sent(d)["properties"]["length"].update(default=3),
     "request schema NewNote, property `length`: is `3` when left out, was `1`"),
    (lambda d: sent(d)["properties"]["length"].update(maximum=9),
     "request schema NewNote, property `length`: at most 9 now, without this bound before (maximum)"),
    (lambda d: got(d)["properties"]["lines"].update(default=2),
     "response schema Note, property `lines`: is `2` when left out, was `1`"),
    (lambda d: d["components"]["securitySchemes"]["key"].update(scheme="basic"),
     "security scheme key: scheme is basic now, was bearer"),
    (lambda d: d["components"]["securitySchemes"].update(key={"type": "apiKey", "scheme": "bearer"}),
     "security scheme key: type is apiKey now, was http"),
    (lambda d: d["components"].pop("securitySchemes"), "security scheme key: is gone"),
    (lambda d: rename(d, "Area", "Extent"), "schema Area: is gone, or has another name"),
    (lambda d: got(d)["properties"]["size"].update({"$ref": "#/components/schemas/Other"}),
     "response schema Note, property `size`: is Other now, was Area"),
    (lambda d: got(d)["properties"].update(size=schemas(d)["Area"]),
     "response schema Note, property `size`: is a schema without a name now, was Area"),
    (lambda d: create(d).update(tags=["remarks"]), "operation create_note: is under `remarks` now, was under `notes`"),
    (lambda d: d["servers"].insert(0, {"url": "/api"}), "server: is /api now, was /"),
    (lambda d: d["paths"]["/notes"].update(servers=[{"url": "/api"}]), "operation create_note, server: is /api now, was /"),
    (lambda d: got(d)["properties"]["space"]["anyOf"].insert(0, {"type": "string"}),
     "response schema Note, property `space`, choice 1 of anyOf: is new, and fits none of those before"),
    (lambda d: create(d)["responses"].update({"202": {}}), "operation create_note, answer 202: is new, and no refusal"),
    (lambda d: create(d)["responses"].update({"302": {}}), "operation create_note, answer 302: is new, and no refusal"),
]

ADDITIONS: list[tuple[str, Change]] = [
    ("an operation", lambda d: d["paths"].update({"/new": {"get": create(d)}})),
    ("a parameter", lambda d: create(d)["parameters"].append({"name": "n", "in": "query", "schema": {}})),
    ("a way in", lambda d: create(d)["security"].append({})),
    ("a refusal", lambda d: create(d)["responses"].update({"409": {}})),
    ("an answer to a condition", lambda d: create(d)["responses"].update({"304": {}})),
    ("a server", lambda d: d["servers"].append({"url": "/api"})),
    ("a scheme", lambda d: d["components"]["securitySchemes"].update(other={"type": "http", "scheme": "basic"})),
    ("a schema", lambda d: schemas(d).update(Another={"type": "object"})),
    ("a header", lambda d: create(d)["responses"]["201"]["headers"].update({"Location": {}})),
    ("a media type", lambda d: create(d)["requestBody"]["content"].update({"text/plain": {}})),
    ("a request field", lambda d: sent(d)["properties"].update(more={"type": "string"})),
    ("an optional field", lambda d: sent(d).pop("required")),
    ("a wider bound", lambda d: sent(d)["properties"]["text"].update(maxLength=101)),
    ("no bound", lambda d: sent(d)["properties"]["text"].pop("pattern")),
    ("a wider type", lambda d: sent(d)["properties"]["text"].update(type=["string", "null"])),
    ("a request value", lambda d: sent(d)["properties"]["kind"]["enum"].append("c")),
    ("a choice", lambda d: sent(d)["properties"]["either"]["anyOf"].insert(0, {"type": "null"})),
    ("one choice for two", lambda d: sent(d)["properties"]["either"].update(anyOf=[{"type": ["string", "integer"]}])),
    ("a choice less to be answered", lambda d: got(d)["properties"]["space"]["anyOf"].pop()),
    ("another order of choices", lambda d: got(d)["properties"]["space"]["anyOf"].reverse()),
    ("members that were refused", lambda d: schemas(d)["Labels"]["patternProperties"].update({"^c": {"type": "string"}})),
    ("members that are as all were", lambda d: got(d)["properties"]["ranks"].update(
        patternProperties={"^n": {"type": "integer", "maximum": 9}})),
    ("a default where none was said", lambda d: sent(d)["properties"]["kind"].update(default="a")),
    ("a response field", lambda d: got(d)["properties"].update(more={"type": "string"})),
    ("a field that is always there", lambda d: got(d)["required"].append("score")),
    ("a response value", lambda d: got(d)["properties"]["state"]["enum"].append("older")),
    ("a tighter response", lambda d: got(d)["properties"]["score"].update(maximum=0.5, type="integer")),
    ("words", lambda d: got(d).update(description="another", title="another", examples=[1])),
]


class Breaks(unittest.TestCase):
    def test_each_break_is_named(self) -> None:
        for change, sentence in BREAKS:
            with self.subTest(sentence):
                self.assertEqual(after(change), [sentence])

    def test_additions_pass(self) -> None:
        for name, change in ADDITIONS:
            with self.subTest(name):
                self.assertEqual(after(change), [])

    def test_each_place_that_gives_up_a_reference_is_looked_at(self) -> None:
        def written_out(document: dict[str, Any]) -> None:
            size = schemas(document)["Size"]
            sent(document)["properties"].update(first=dict(size), length={**size, "minimum": 5})

        expected = "request schema NewNote, property `length`: at least 5 now, at least 1 before (minimum)"
        self.assertIn(expected, after(written_out))

    def test_there_is_an_end_where_only_one_side_goes_round_in_circles(self) -> None:
        def endless(document: dict[str, Any]) -> None:
            schemas(document)["Tree"] = {"items": {"$ref": "#/components/schemas/Tree"}, "maxItems": 9}
            sent(document)["properties"]["any"] = {"$ref": "#/components/schemas/Tree"}

        before = copy.deepcopy(SMALL)
        sent(before)["properties"]["any"] = {}
        at = "request schema NewNote, property `any`"
        limit = "at most 9 items now, without this bound before (maxItems)"
        self.assertEqual(after(endless, before), [f"{at}: {limit}", f"{at}, items: {limit}"])


if __name__ == "__main__":
    unittest.main()
