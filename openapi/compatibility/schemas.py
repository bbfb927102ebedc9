"""Compares two JSON schemas: what a client may send has to be taken as before, and what it gets has to look as before.

A request may become more lenient and an answer more exact; the reverse breaks clients. What is neither, such as a description
or a new property, goes unnoticed. Schemas with a name are compared once for each direction, whoever refers to them; what stands
beside a reference is compared wherever that is.
"""

from __future__ import annotations

import json
from typing import Any, Iterator

Schema = dict[str, Any]

REQUEST, RESPONSE = "request", "response"

ALL_TYPES = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})

# Each bound with what it means, and which direction is tighter.
UPPER_BOUNDS = {
    "maximum": "at most {}", "exclusiveMaximum": "less than {}", "maxLength": "at most {} characters",
    "maxItems": "at most {} items", "maxProperties": "at most {} members",
}
LOWER_BOUNDS = {
    "minimum": "at least {}", "exclusiveMinimum": "more than {}", "minLength": "at least {} characters",
    "minItems": "at least {} items", "minProperties": "at least {} members",
}
# Rules that are either there or not, and of which nothing says which of two is tighter.
RULES = ("format", "pattern", "multipleOf", "uniqueItems", "not", "if", "then", "else", "dependentRequired",
         "minContains", "maxContains")


def named(document: Schema) -> dict[str, Schema]:
    return document.get("components", {}).get("schemas", {})


def shown(value: Any) -> str:
    return f"`{json.dumps(value, ensure_ascii=False)}`" if not isinstance(value, str) else f"`{value}`"


class Comparison:
    """All comparisons between two documents, so that a named schema is compared once. One that is `trusting` takes a named schema
    for what it was: whether it is, another one says."""

    def __init__(self, old: Schema, new: Schema, trusting: bool = False):
        self.documents = (old, new)
        self.trusting = trusting
        self.done: set[tuple[Any, Any, str]] = set()

    def followed(self, schema: Any, which: int) -> tuple[Schema, str, Schema]:
        """The schema behind a reference, its name, and what stands beside the reference; what is no reference is itself."""
        if schema is True or schema is None:
            return {}, "", {}
        if schema is False:
            return {"not": {}}, "", {}
        name, beside = "", {}
        while "$ref" in schema:
            reference: str = schema["$ref"]
            beside = {key: value for key, value in schema.items() if key != "$ref"} | beside
            schema = self.documents[which]
            for part in reference.removeprefix("#/").split("/"):
                schema = schema[part.replace("~1", "/").replace("~0", "~")]
            name = reference.removeprefix("#/components/schemas/")
        return schema, name, beside

    def resolved(self, schema: Any, which: int) -> Schema:
        behind, _, beside = self.followed(schema, which)
        return {**behind, **beside}

    def compare(self, old: Any, new: Any, way: str, place: str) -> Iterator[str]:
        """Sentences about what breaks clients, each of which begins with `place`."""
        one, old_name, old_beside = self.followed(old, 0)
        other, new_name, new_beside = self.followed(new, 1)
        # That there is none of this name any more is said once for the whole document.
        if old_name != new_name and old_name in named(self.documents[1]):
            yield f"{place}: is {new_name or 'a schema without a name'} now, was {old_name}"
        if old_name and new_name:
            yield from self.beside((one, old_beside), (other, new_beside), way, place)
            if old_name == new_name:
                if self.trusting:
                    return
                place = f"{way} schema {old_name}"
            if self.seen(old_name, new_name, way):
                return
        elif old_name or new_name:
            # Of two that both refer to themselves there is no end without this. Without a name, a schema is the place it stands at.
            if self.seen(id(old), id(new), way):
                return
            one, other = {**one, **old_beside}, {**other, **new_beside}
        yield from self.contents(one, other, way, place)

    def seen(self, old: Any, new: Any, way: str) -> bool:
        """Whether these two have been compared; they will have been the next time."""
        if (old, new, way) in self.done:
            return True
        self.done.add((old, new, way))
        return False

    def beside(self, old: tuple[Schema, Schema], new: tuple[Schema, Schema], way: str, place: str) -> Iterator[str]:
        """What stands beside two references holds in addition, but for a default, which stands for the one behind."""
        before, after = dict(old[1]), dict(new[1])
        if "default" in before or "default" in after:
            for behind, beside in ((old[0], before), (new[0], after)):
                if "default" in behind:
                    beside.setdefault("default", behind["default"])
        yield from self.contents(before, after, way, place)

    def contents(self, old: Schema, new: Schema, way: str, place: str) -> Iterator[str]:
        if not types_of(old) & types_of(new):
            yield f"{place}: is {listed(types_of(new))} now, was {listed(types_of(old))}"
            return
        yield from self.types(old, new, way, place)
        yield from values(old, new, way, place)
        yield from bounds(old, new, way, place)
        yield from rules(old, new, way, place)
        yield from self.members(old, new, way, place)
        for part, name in (("items", "items"), ("propertyNames", "names of members")):
            if part in old or part in new:
                yield from self.compare(old.get(part), new.get(part), way, f"{place}, {name}")
        for choice in ("anyOf", "oneOf"):
            yield from self.choices(old, new, way, place, choice)
        for number, (one, other) in enumerate(paired(old.get("allOf", []), new.get("allOf", []))):
            yield from self.compare(one, other, way, f"{place}, part {number + 1} of allOf")

    def types(self, old: Schema, new: Schema, way: str, place: str) -> Iterator[str]:
        before, after = types_of(old), types_of(new)
        lost = before - after if way == REQUEST else after - before
        if not lost:
            return
        yield f"{place}: takes no {listed(lost)} any more" if way == REQUEST else f"{place}: may be {listed(lost)} now"

    def members(self, old: Schema, new: Schema, way: str, place: str) -> Iterator[str]:
        before, after = old.get("properties", {}), new.get("properties", {})
        for name, schema in before.items():
            at = f"{place}, property `{name}`"
            if name not in after:
                yield f"{at}: is gone"
            else:
                yield from self.compare(schema, after[name], way, at)
        yield from self.patterns(old, new, way, place)
        were, are = set(old.get("required", [])), set(new.get("required", []))
        if way == REQUEST:
            for name in sorted(are - were):
                yield f"{place}, property `{name}`: is required now"
        else:
            for name in sorted(were - are - (set(before) - set(after))):
                yield f"{place}, property `{name}`: may be missing now"
        one, other = old.get("additionalProperties", True), new.get("additionalProperties", True)
        if way == REQUEST and one is not False and other is False:
            yield f"{place}: takes no further members any more"
        elif isinstance(one, dict) or isinstance(other, dict):
            if one is not False and other is not False:
                yield from self.compare(one, other, way, f"{place}, further members")

    def patterns(self, old: Schema, new: Schema, way: str, place: str) -> Iterator[str]:
        before, after = old.get("patternProperties", {}), new.get("patternProperties", {})
        for pattern, schema in before.items():
            at = f"{place}, members like `{pattern}`"
            if pattern not in after:
                yield f"{at}: are gone"
            else:
                yield from self.compare(schema, after[pattern], way, at)
        others = old.get("additionalProperties", True)
        for pattern, schema in after.items():
            # Where there could be no such member before, nobody has one that the new rule could be too narrow for.
            if pattern not in before and others is not False:
                yield from self.compare(others, schema, way, f"{place}, members like `{pattern}`")

    def choices(self, old: Schema, new: Schema, way: str, place: str, choice: str) -> Iterator[str]:
        """Where one of several schemas has to fit, in any order: of a request, each old one has to fit a new one, and of an
        answer each new one an old one."""
        before, after = old.get(choice), new.get(choice)
        if before is None or after is None:
            if after is not None and way == REQUEST:
                yield f"{place}: has to fit one of several schemas now ({choice})"
            elif before is not None and way == RESPONSE:
                yield f"{place}: does not have to fit one of the schemas any more ({choice})"
            return
        seeking, offered = (before, after) if way == REQUEST else (after, before)

        def pair(number: int, other: int) -> tuple[Any, Any]:
            return (seeking[number], offered[other]) if way == REQUEST else (offered[other], seeking[number])

        alone, left = [], set(range(len(offered)))
        for number, schema in enumerate(seeking):
            # Of several that fit, the one that it has most likely been.
            likely = sorted(range(len(offered)), key=lambda at: (reference(offered[at]) != reference(schema), at != number))
            fitting = next((at for at in likely if before == after or self.fits(*pair(number, at), way)), None)
            if fitting is None:
                alone.append(number)
            else:
                left.discard(fitting)
                yield from self.compare(*pair(number, fitting), way, f"{place}, choice {number + 1} of {choice}")
        if len(alone) == len(left):
            # Most likely the same ones, so what is said of each says most.
            for number, other in zip(alone, sorted(left)):
                yield from self.compare(*pair(number, other), way, f"{place}, choice {number + 1} of {choice}")
            return
        for number in alone:
            what = "is gone, or fits none any more" if way == REQUEST else "is new, and fits none of those before"
            yield f"{place}, choice {number + 1} of {choice}: {what}"

    def fits(self, old: Any, new: Any, way: str) -> bool:
        trial = Comparison(*self.documents, trusting=True)
        return next(trial.compare(old, new, way, ""), None) is None


def types_of(schema: Schema) -> frozenset[str]:
    kind = schema.get("type")
    if kind is None:
        return ALL_TYPES
    kinds = {kind} if isinstance(kind, str) else set(kind)
    # A whole number is a number.
    return frozenset(kinds | {"integer"} if "number" in kinds else kinds)


def listed(types: frozenset[str]) -> str:
    return ", ".join(sorted(types - {"integer"} if "number" in types else types))


def values(old: Schema, new: Schema, way: str, place: str) -> Iterator[str]:
    def of(schema: Schema) -> list[Any] | None:
        return [schema["const"]] if "const" in schema else schema.get("enum")

    before, after = of(old), of(new)
    if before is None:
        if after is not None and way == REQUEST:
            yield f"{place}: takes only {', '.join(map(shown, after))} now"
        return
    if after is None:
        if way == RESPONSE:
            yield f"{place}: may have other values than {', '.join(map(shown, before))} now"
        return
    for value in before:
        if value not in after:
            yield f"{place}: the value {shown(value)} is gone"


def bounds(old: Schema, new: Schema, way: str, place: str) -> Iterator[str]:
    for table, sign in ((UPPER_BOUNDS, 1), (LOWER_BOUNDS, -1)):
        for name, words in table.items():
            before, after = old.get(name), new.get(name)
            tight, loose = (after, before) if way == REQUEST else (before, after)
            if tight is None or (loose is not None and sign * tight >= sign * loose):
                continue
            was = "without this bound before" if before is None else f"{words.format(before)} before"
            now = "without this bound now" if after is None else f"{words.format(after)} now"
            yield f"{place}: {now}, {was} ({name})"


def rules(old: Schema, new: Schema, way: str, place: str) -> Iterator[str]:
    for name in RULES:
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if (after if way == REQUEST else before) is None:
            continue
        yield f"{place}: {name} is {shown(after)} now, was {shown(before)}"
    before, after = old.get("default"), new.get("default")
    if "default" in old and before != after:
        yield f"{place}: is {shown(after)} when left out, was {shown(before)}"


def reference(schema: Any) -> str | None:
    return schema.get("$ref") if isinstance(schema, dict) else None


def paired(one: list[Any], other: list[Any]) -> Iterator[tuple[Any, Any]]:
    for number in range(max(len(one), len(other))):
        yield (one[number] if number < len(one) else None, other[number] if number < len(other) else None)
