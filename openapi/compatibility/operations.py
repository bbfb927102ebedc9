"""Compares two OpenAPI documents: where the service is, what its schemas are called, and of each operation the route, parameters,
body, answers, and who may call it."""

from __future__ import annotations

from typing import Any, Iterator

from .schemas import REQUEST, RESPONSE, Comparison, named

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
# What is said of a way to prove who one is; the rest is words.
SCHEME_ASPECTS = ("type", "scheme", "in", "name", "flows", "openIdConnectUrl")
# Only who sent the condition gets it.
ASKED_FOR = "304"


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method, path): {
            "servers": item.get("servers"),
            **item[method],
            "parameters": item.get("parameters", []) + item[method].get("parameters", []),
        }
        for path, item in document["paths"].items()
        for method in METHODS
        if method in item
    }


def breaks(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """A sentence for each thing that clients of `old` cannot rely on in `new`."""
    comparison = Comparison(old, new)
    after = operations(new)
    found = [*server(old, new, "server"), *schemes(old, new)]
    # Clients have a class for each, whoever refers to it.
    found.extend(f"schema {name}: is gone, or has another name" for name in named(old) if name not in named(new))
    for (method, path), operation in operations(old).items():
        name = operation["operationId"]
        if (method, path) not in after:
            found.append(f"operation {name}: {method.upper()} {path} is gone")
        else:
            found.extend(compare(comparison, operation, after[method, path], f"operation {name}"))
    return found


def server(old: dict[str, Any], new: dict[str, Any], place: str) -> Iterator[str]:
    """Clients take the first one, unless told otherwise."""
    before, after = ((thing.get("servers") or [{"url": "/"}])[0]["url"] for thing in (old, new))
    if before != after:
        yield f"{place}: is {after} now, was {before}"


def schemes(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    before, after = (document.get("components", {}).get("securitySchemes", {}) for document in (old, new))
    for name, scheme in before.items():
        if name not in after:
            yield f"security scheme {name}: is gone"
            continue
        for aspect in SCHEME_ASPECTS:
            if scheme.get(aspect) != after[name].get(aspect):
                yield f"security scheme {name}: {aspect} is {after[name].get(aspect)} now, was {scheme.get(aspect)}"


def compare(comparison: Comparison, old: dict[str, Any], new: dict[str, Any], place: str) -> Iterator[str]:
    if old["operationId"] != new["operationId"]:
        yield f"{place}: is called `{new['operationId']}` now"
    # A tag is the module or class in which clients have the operation.
    if old.get("tags", []) != new.get("tags", []):
        yield f"{place}: is under {tags(new)} now, was under {tags(old)}"
    yield from server(old, new, f"{place}, server")
    yield from security(old, new, place)
    yield from parameters(comparison, old, new, place)
    yield from bodies(comparison, old, new, place)
    yield from responses(comparison, old, new, place)


def tags(operation: dict[str, Any]) -> str:
    return " and ".join(f"`{tag}`" for tag in operation.get("tags", [])) or "no tag"


def security(old: dict[str, Any], new: dict[str, Any], place: str) -> Iterator[str]:
    """Each requirement is one way in; who had one has to have it still."""
    for way_in in old.get("security", [{}]):
        enough = (
            all(scheme in way_in and set(scopes) <= set(way_in[scheme]) for scheme, scopes in requirement.items())
            for requirement in new.get("security", [{}])
        )
        if not any(enough):
            words = ", ".join(f"{scheme} with {' and '.join(scopes) or 'no scope'}" for scheme, scopes in way_in.items())
            yield f"{place}: {words or 'no key at all'} is not enough any more"


def parameters(comparison: Comparison, old: dict[str, Any], new: dict[str, Any], place: str) -> Iterator[str]:
    def of(operation: dict[str, Any], which: int) -> dict[tuple[str, str], dict[str, Any]]:
        resolved = (comparison.resolved(parameter, which) for parameter in operation["parameters"])
        return {(parameter["in"], parameter["name"]): parameter for parameter in resolved}

    before, after = of(old, 0), of(new, 1)
    for (where, name), parameter in before.items():
        at = f"{place}, {where} parameter `{name}`"
        if (where, name) not in after:
            yield f"{at}: is gone"
            continue
        other = after[where, name]
        if other.get("required") and not parameter.get("required"):
            yield f"{at}: is required now"
        for aspect, usual in (("style", None), ("explode", None)):
            if parameter.get(aspect, usual) != other.get(aspect, usual):
                yield f"{at}: {aspect} is {other.get(aspect)} now, was {parameter.get(aspect)}"
        if ("schema" in parameter) != ("schema" in other):
            yield f"{at}: is written in another way (schema, content)"
        elif "schema" in parameter:
            yield from comparison.compare(parameter["schema"], other["schema"], REQUEST, at)
        else:
            yield from contents(comparison, parameter["content"], other["content"], REQUEST, at)
    for (where, name), parameter in after.items():
        if parameter.get("required") and (where, name) not in before:
            yield f"{place}, {where} parameter `{name}`: is new and required"


def bodies(comparison: Comparison, old: dict[str, Any], new: dict[str, Any], place: str) -> Iterator[str]:
    before = comparison.resolved(old.get("requestBody"), 0)
    after = comparison.resolved(new.get("requestBody"), 1)
    at = f"{place}, body"
    if after.get("required") and not before.get("required"):
        yield f"{at}: is required now"
    if before and not after:
        yield f"{at}: is gone"
    elif before:
        yield from contents(comparison, before["content"], after["content"], REQUEST, at)


def responses(comparison: Comparison, old: dict[str, Any], new: dict[str, Any], place: str) -> Iterator[str]:
    for status, response in old["responses"].items():
        at = f"{place}, answer {status}"
        if status not in new["responses"]:
            yield f"{at}: is gone"
            continue
        before = comparison.resolved(response, 0)
        after = comparison.resolved(new["responses"][status], 1)
        yield from contents(comparison, before.get("content", {}), after.get("content", {}), RESPONSE, at)
        for name, header in before.get("headers", {}).items():
            here = f"{at}, header `{name}`"
            if name not in after.get("headers", {}):
                yield f"{here}: is gone"
                continue
            one = comparison.resolved(header, 0)
            other = comparison.resolved(after["headers"][name], 1)
            if one.get("required") and not other.get("required"):
                yield f"{here}: may be missing now"
            yield from comparison.compare(one.get("schema"), other.get("schema"), RESPONSE, here)
    for status in new["responses"]:
        if status not in old["responses"] and status[0] in "123" and status != ASKED_FOR:
            yield f"{place}, answer {status}: is new, and no refusal"


def contents(
    comparison: Comparison, old: dict[str, Any], new: dict[str, Any], way: str, place: str
) -> Iterator[str]:
    for media_type, content in old.items():
        if media_type not in new:
            yield f"{place}: {media_type} is gone"
        else:
            yield from comparison.compare(content.get("schema"), new[media_type].get("schema"), way, place)
