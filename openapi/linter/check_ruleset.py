"""Whether each rule of our own notices what it is for, and that alone: the document is broken at one place for each part of a rule,
and these places have to be what is found.

usage: python3 linter/check_ruleset.py SPECTRAL, from the folder openapi
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable

HERE = Path(__file__).resolve().parent
SPECTRAL_SECONDS_MAX = 120

Document = dict[str, Any]


def operation(document: Document, method: str, path: str) -> dict[str, Any]:
    return document["paths"][path][method]


def search(document: Document) -> dict[str, Any]:
    return operation(document, "post", "/v1/contexts/search")


def pack(document: Document) -> dict[str, Any]:
    return operation(document, "post", "/v1/contexts/pack")


def listing(document: Document) -> dict[str, Any]:
    return operation(document, "get", "/v1/contexts")


def schema(document: Document, name: str) -> dict[str, Any]:
    return document["components"]["schemas"][name]


def inline(document: Document) -> None:
    shared = document["components"]["responses"]["Unauthorized"]
    listing(document)["responses"]["401"] = json.loads(json.dumps(shared))


def other_problem(document: Document) -> None:
    document["components"]["responses"]["Internal"]["content"]["application/problem+json"]["schema"] = {"type": "object"}


OTHER_SCHEMA = {"type": "object", "description": "Another.", "properties": {}}

SEARCH, PACK, LISTING = "paths /v1/contexts/search post", "paths /v1/contexts/pack post", "paths /v1/contexts get"
RESPONSES, SCHEMAS = "components responses", "components schemas"

# Each rule, the path that it has to report, and what is wrong there.
BREAKS: list[tuple[str, str, Callable[[Document], Any]]] = [
    ("operation-id-is-the-handler", f"{SEARCH} operationId", lambda d: search(d).update(operationId="searchContexts")),
    ("operation-id-is-the-handler", PACK, lambda d: pack(d).pop("operationId")),
    ("operation-says-what-it-does", f"{SEARCH} summary", lambda d: search(d).update(summary="Find contexts.")),
    ("operation-says-what-it-does", f"{PACK} summary", lambda d: pack(d).update(summary="Pack")),
    ("operation-says-what-it-does", f"{LISTING} description", lambda d: listing(d).update(description="Lists them")),
    ("operation-has-one-tag", f"{SEARCH} tags", lambda d: search(d).update(tags=["search", "contexts"])),
    ("operation-says-who-may-call-it", SEARCH, lambda d: search(d).pop("security")),
    ("operation-says-who-may-call-it", f"{PACK} security", lambda d: pack(d).update(security=[])),
    ("paths-are-in-kebab-case", "paths /v1/someThings",
     lambda d: d["paths"].update({"/v1/someThings": d["paths"].pop("/v1/usage")})),
    ("parameter-is-described", f"{LISTING} parameters 0", lambda d: listing(d)["parameters"][0].pop("description")),
    ("body-says-whether-it-is-required", f"{SEARCH} requestBody", lambda d: search(d)["requestBody"].pop("required")),
    ("body-has-an-example", f"{SEARCH} requestBody content application/json",
     lambda d: search(d)["requestBody"]["content"]["application/json"].pop("example")),
    ("response-has-an-example", f"{SEARCH} responses 200 content application/json",
     lambda d: search(d)["responses"]["200"]["content"]["application/json"].pop("example")),
    ("refusal-is-a-problem", f"{RESPONSES} BadParameter content",
     lambda d: d["components"]["responses"]["BadParameter"].update(content={"text/plain": {"example": ""}})),
    ("refusal-stands-in-one-place", f"{RESPONSES} Internal content application/problem+json schema", other_problem),
    ("refusals-are-shared", f"{LISTING} responses 401", inline),
    ("limited-says-when-to-come-back", f"{RESPONSES} RateLimited headers",
     lambda d: d["components"]["responses"]["RateLimited"]["headers"].pop("Retry-After")),
    ("schemas-are-in-pascal-case", f"{SCHEMAS} other_name", lambda d: d["components"]["schemas"].update(other_name=OTHER_SCHEMA)),
    # No property refers to this one, or it would not be described either.
    ("schema-is-described", f"{SCHEMAS} Usage", lambda d: schema(d, "Usage").pop("description")),
    ("property-is-described", f"{SCHEMAS} Tenant properties name",
     lambda d: schema(d, "Tenant")["properties"]["name"].pop("description")),
    ("properties-are-in-snake-case", f"{SCHEMAS} Tenant properties madeBy",
     lambda d: schema(d, "Tenant")["properties"].update(madeBy={"description": "Who.", "type": "string"})),
    ("what-is-sent-is-bounded", f"{SCHEMAS} Search properties limit",
     lambda d: schema(d, "Search")["properties"]["limit"].pop("maximum")),
    ("what-is-sent-is-bounded", f"{LISTING} parameters 1 schema",
     lambda d: listing(d)["parameters"][1].update(schema={"type": "string"})),
    ("number-has-a-format", f"{SCHEMAS} Counted properties count",
     lambda d: schema(d, "Counted")["properties"]["count"].pop("format")),
    ("number-has-a-format", f"{SCHEMAS} Stored properties bytes_max",
     lambda d: schema(d, "Stored")["properties"]["bytes_max"].pop("format")),
]


def main(spectral: str) -> None:
    ruleset = HERE / "ruleset.yaml"
    own = set(re.findall(r"^  ([a-z0-9-]+):$", ruleset.read_text(), re.MULTILINE))
    broken = {rule for rule, _, _ in BREAKS}
    assert own == broken, f"rules without a break, or breaks without a rule: {own ^ broken}"
    document = json.loads((HERE.parent / "openapi.json").read_text())
    for _, _, change in BREAKS:
        change(document)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(document, file)
        file.flush()
        arguments = [spectral, "lint", "--ruleset", str(ruleset), "--format", "json", "--quiet", file.name]
        run = subprocess.run(arguments, capture_output=True, text=True, timeout=SPECTRAL_SECONDS_MAX, check=False)
    problems = json.loads(run.stdout or "[]")
    found = {(problem["code"], " ".join(problem["path"])) for problem in problems if problem["code"] in own}
    expected = {(rule, path) for rule, path, _ in BREAKS}
    wrong = [f"{rule} does not notice what is wrong with {path}" for rule, path in sorted(expected - found)]
    wrong += [f"{rule} finds fault with {path}" for rule, path in sorted(found - expected)]
    if wrong:
        raise SystemExit("\n".join([*wrong, run.stderr]))
    print(f"each of {len(own)} rules notices what it is for, at {len(expected)} places")


if __name__ == "__main__":
    main(*sys.argv[1:])
