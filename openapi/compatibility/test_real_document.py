"""That nothing in the real document is out of the gate's sight: each keyword of each schema in it is changed in turn, in a way that
breaks clients, and each time the gate has to say so.

usage: python3 -m unittest discover --start-directory compatibility --top-level-directory ., from the folder openapi
"""

from __future__ import annotations

import copy
import json
import unittest
from typing import Any, Callable, Iterator

from . import __main__ as check
from .operations import METHODS, breaks
from .schemas import LOWER_BOUNDS, REQUEST, RESPONSE, UPPER_BOUNDS, Comparison, shown

Schema = dict[str, Any]
# What a schema has to be like, and what the sentence about it has to contain.
Change = tuple[Schema, str]

REAL: Schema = json.loads((check.HERE / "openapi.json").read_text())
NAMED: dict[str, Schema] = REAL["components"]["schemas"]
PREFIX = "#/components/schemas/"

WORDS = {"description", "title", "summary", "example", "examples"}
# Their values hold neither schemas nor words.
VALUES = {"type", "format", "pattern", "enum", "required", "default", *UPPER_BOUNDS, *LOWER_BOUNDS}
# No value that is there has this one's type, nor this name.
STRANGE = {"type": "strange"}


def parts(schema: Schema) -> Iterator[Schema]:
    """This schema and all that are written within it."""
    yield schema
    for keyword, value in schema.items():
        inside: list[Any] = []
        if keyword in ("properties", "patternProperties"):
            inside = list(value.values())
        elif keyword not in WORDS | VALUES:
            inside = value if isinstance(value, list) else [value]
        for part in inside:
            if isinstance(part, dict):
                yield from parts(part)


def without(schema: Schema, keyword: str, member: Any) -> Schema:
    """A copy that lacks one member of what the keyword lists."""
    value = schema[keyword]
    rest = {k: v for k, v in value.items() if k != member} if isinstance(value, dict) else [v for v in value if v != member]
    return {**schema, keyword: rest}


def changes(schema: Schema, way: str) -> Iterator[Change]:
    """What breaks clients of this schema in one way, for each of its keywords."""
    for keyword, value in schema.items():
        if keyword in WORDS:
            continue
        found = list(change(schema, keyword, value, way))
        # A further keyword needs a further case, here and most likely in the gate.
        assert found or (keyword, value) == ("additionalProperties", False), f"{keyword} is never changed"
        yield from found


def change(schema: Schema, keyword: str, value: Any, way: str) -> Iterator[Change]:
    if keyword == "properties":
        for name in value:
            yield without(schema, keyword, name), f"property `{name}`: is gone"
    elif keyword == "patternProperties":
        for pattern in value:
            yield without(schema, keyword, pattern), f"members like `{pattern}`: are gone"
    elif keyword in UPPER_BOUNDS or keyword in LOWER_BOUNDS:
        # Of so much that the largest numbers, too, become others.
        step = abs(value) * 1e-6 + 1
        tighter = {**schema, keyword: value - step if keyword in UPPER_BOUNDS else value + step}
        yield tighter if way == REQUEST else {k: v for k, v in schema.items() if k != keyword}, f"({keyword})"
    elif keyword == "type":
        yield schema | STRANGE, "is strange now, was "
        if way == RESPONSE:
            yield {**schema, "type": [value, "strange"] if isinstance(value, str) else [*value, "strange"]}, "may be strange now"
        elif isinstance(value, list):
            for kind in value:
                yield without(schema, "type", kind), f"takes no {kind} any more"
    elif keyword == "enum":
        for member in value:
            yield without(schema, keyword, member), f"the value {shown(member)} is gone"
    elif keyword == "required":
        if way == REQUEST:
            yield {**schema, keyword: [*value, "strange"]}, "property `strange`: is required now"
        else:
            for name in value:
                yield without(schema, keyword, name), f"property `{name}`: may be missing now"
    elif keyword in ("format", "pattern"):
        yield {**schema, keyword: "strange"}, f"{keyword} is `strange` now, was `{value}`"
    elif keyword == "default":
        yield {**schema, keyword: "strange"}, f"is `strange` when left out, was `{value}`"
    elif keyword == "$ref":
        other = next(name for name in NAMED if PREFIX + name != value)
        yield {**schema, keyword: PREFIX + other}, f"is {other} now, was {value.removeprefix(PREFIX)}"
    elif keyword == "items":
        yield {**schema, keyword: STRANGE}, ", items: "
    elif keyword == "propertyNames":
        yield {**schema, keyword: STRANGE}, ", names of members: "
    elif keyword == "additionalProperties" and value is not False:
        yield {**schema, keyword: STRANGE}, ", further members: "
    elif keyword in ("anyOf", "oneOf"):
        if way == REQUEST:
            for number, choice in enumerate(value):
                yield without(schema, keyword, choice), f"choice {number + 1} of {keyword}: is gone"
        else:
            yield {**schema, keyword: [*value, STRANGE]}, f"choice {len(value) + 1} of {keyword}: is new"
    elif keyword == "allOf":
        for number in range(len(value)):
            yield {**schema, keyword: value[:number] + [STRANGE] + value[number + 1:]}, f"part {number + 1} of allOf: "


def reached(schema: Any) -> set[str]:
    """The names of all schemas that this part of the document leads to."""
    names: set[str] = set()
    left = [schema]
    while left:
        part = left.pop()
        if isinstance(part, list):
            left.extend(part)
        elif isinstance(part, dict):
            left.extend(part.values())
            reference = part.get("$ref")
            if isinstance(reference, str) and reference not in names:
                names.add(reference)
                behind: Any = REAL
                for key in reference.removeprefix("#/").split("/"):
                    behind = behind[key]
                left.append(behind)
    return {name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX)}


OPERATIONS = [item[method] for item in REAL["paths"].values() for method in METHODS if method in item]
REACHED = {
    REQUEST: reached([[operation.get("parameters"), operation.get("requestBody")] for operation in OPERATIONS]),
    RESPONSE: reached([operation["responses"] for operation in OPERATIONS]),
}


def inline(document: Schema) -> Iterator[tuple[str, str, Schema]]:
    """The schemas that stand in operations and in answers that they share: way, path (of all, when it is empty), schema."""
    def of(holders: list[Schema]) -> Iterator[Schema]:
        for holder in holders:
            yield from (place["schema"] for place in [holder, *holder.get("content", {}).values()] if "schema" in place)

    def answers(responses: dict[str, Schema]) -> list[Schema]:
        return [*responses.values(), *(header for one in responses.values() for header in one.get("headers", {}).values())]

    for path, item in document["paths"].items():
        for operation in (item[method] for method in METHODS if method in item):
            for schema in of([*operation.get("parameters", []), operation.get("requestBody", {})]):
                yield REQUEST, path, schema
            for schema in of(answers(operation["responses"])):
                yield RESPONSE, path, schema
    shared = document["components"]
    for schema in of([*answers(shared["responses"]), *shared["headers"].values()]):
        yield RESPONSE, "", schema


class RealDocument(unittest.TestCase):
    def setUp(self) -> None:
        self.changed = copy.deepcopy(REAL)

    def try_all(self, schema: Schema, way: str, found: Callable[[], Iterator[str] | list[str]], place: str) -> int:
        """Changes each keyword in turn, in place; how many changes there were."""
        tried = 0
        for part in parts(schema):
            original = dict(part)
            for changed, expected in list(changes(original, way)):
                part.clear()
                part.update(changed)
                sentences = list(found())
                part.clear()
                part.update(original)
                tried += 1
                with self.subTest(place, way=way, expected=expected):
                    self.assertTrue(any(expected in sentence for sentence in sentences), sentences)
        return tried

    def test_it_breaks_nothing_by_itself(self) -> None:
        self.assertEqual(breaks(REAL, self.changed), [])

    def test_each_keyword_of_each_schema_with_a_name(self) -> None:
        self.assertEqual(REACHED[REQUEST] | REACHED[RESPONSE], set(NAMED))
        for way, names in REACHED.items():
            for name in sorted(names):
                reference = {"$ref": PREFIX + name}
                self.try_all(
                    self.changed["components"]["schemas"][name], way,
                    lambda: Comparison(REAL, self.changed).compare(reference, reference, way, ""), name,
                )

    def test_each_schema_with_a_name_is_come_by_in_each_direction(self) -> None:
        old = copy.deepcopy(REAL)
        for document, default in ((old, 1), (self.changed, 2)):
            for schema in document["components"]["schemas"].values():
                schema["default"] = default
        said = " is `2` when left out, was `1`"
        expected = {f"{way} schema {name}:{said}" for way, names in REACHED.items() for name in names}
        self.assertEqual({sentence for sentence in breaks(old, self.changed) if sentence.endswith(said)}, expected)

    def test_each_keyword_of_each_schema_in_an_operation(self) -> None:
        for way, path, schema in inline(self.changed):
            def narrowed(document: Schema) -> Schema:
                return {**document, "paths": {path: document["paths"][path]}} if path else document

            self.try_all(schema, way, lambda: breaks(narrowed(REAL), narrowed(self.changed)), path or "shared")


if __name__ == "__main__":
    unittest.main()
