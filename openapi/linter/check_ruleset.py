"""Whether each rule of our own notices what it is for: the document is broken in one way for each, and all of them have to be found.

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


def search(document: Document) -> dict[str, Any]:
    return document["paths"]["/v1/contexts/search"]["post"]


def listing(document: Document) -> dict[str, Any]:
    return document["paths"]["/v1/contexts"]["get"]


def schema(document: Document, name: str) -> dict[str, Any]:
    return document["components"]["schemas"][name]


def inline(document: Document) -> None:
    shared = document["components"]["responses"]["Unauthorized"]
    listing(document)["responses"]["401"] = json.loads(json.dumps(shared))


def other_problem(document: Document) -> None:
    document["components"]["responses"]["Internal"]["content"]["application/problem+json"]["schema"] = {"type": "object"}


BREAKS: dict[str, Callable[[Document], Any]] = {
    "operation-id-is-the-handler": lambda d: search(d).update(operationId="searchContexts"),
    "operation-says-what-it-does": lambda d: search(d).update(summary="Find contexts."),
    "operation-has-one-tag": lambda d: search(d).update(tags=["search", "contexts"]),
    "operation-says-who-may-call-it": lambda d: search(d).pop("security"),
    "paths-are-in-kebab-case": lambda d: d["paths"].update({"/v1/someThings": d["paths"].pop("/v1/usage")}),
    "parameter-is-described": lambda d: listing(d)["parameters"][0].pop("description"),
    "body-says-whether-it-is-required": lambda d: search(d)["requestBody"].pop("required"),
    "body-has-an-example": lambda d: search(d)["requestBody"]["content"]["application/json"].pop("example"),
    "response-has-an-example": lambda d: search(d)["responses"]["200"]["content"]["application/json"].pop("example"),
    "refusal-is-a-problem": lambda d: d["components"]["responses"]["BadParameter"].update(content={"text/plain": {"example": ""}}),
    "refusal-stands-in-one-place": other_problem,
    "refusals-are-shared": inline,
    "limited-says-when-to-come-back": lambda d: d["components"]["responses"]["RateLimited"]["headers"].pop("Retry-After"),
    "schemas-are-in-pascal-case": lambda d: d["components"]["schemas"].update(other_name=schema(d, "Tenant")),
    "schema-is-described": lambda d: schema(d, "Check").pop("description"),
    "property-is-described": lambda d: schema(d, "Tenant")["properties"]["name"].pop("description"),
    "properties-are-in-snake-case": lambda d: schema(d, "Tenant")["properties"].update(madeBy={"description": "Who.", "type": "string"}),
    "what-is-sent-is-bounded": lambda d: schema(d, "Search")["properties"]["limit"].pop("maximum"),
    "number-has-a-format": lambda d: schema(d, "Counted")["properties"]["count"].pop("format"),
}


def main(spectral: str) -> None:
    ruleset = HERE / "ruleset.yaml"
    own = set(re.findall(r"^  ([a-z0-9-]+):$", ruleset.read_text(), re.MULTILINE))
    assert own == set(BREAKS), f"rules without a break, or breaks without a rule: {own ^ set(BREAKS)}"
    document = json.loads((HERE.parent / "openapi.json").read_text())
    for change in BREAKS.values():
        change(document)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(document, file)
        file.flush()
        arguments = [spectral, "lint", "--ruleset", str(ruleset), "--format", "json", "--quiet", file.name]
        run = subprocess.run(arguments, capture_output=True, text=True, timeout=SPECTRAL_SECONDS_MAX, check=False)
    found = {problem["code"] for problem in json.loads(run.stdout or "[]")}
    if unnoticed := own - found:
        raise SystemExit(f"these rules do not notice what they are for: {', '.join(sorted(unnoticed))}\n{run.stderr}")
    print(f"each of {len(own)} rules notices what it is for")


if __name__ == "__main__":
    main(*sys.argv[1:])
