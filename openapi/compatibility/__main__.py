"""Fails with a sentence for each thing that breaks clients of the last release and was not declared.

usage: python3 -m compatibility [DOCUMENT [RELEASED [DECLARED [CHECKSUMS]]]], from the folder openapi
"""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path

from .operations import breaks, operations
from .released import altered, last_release

HERE = Path(__file__).resolve().parent.parent
REASON_CHARS_MIN = 20


def declared(file: Path) -> dict[str, str]:
    """The breaks that are meant, each with its reason."""
    meant: dict[str, str] = {}
    for entry in tomllib.loads(file.read_text()).get("break", []):
        what, reason = entry.get("what", ""), entry.get("reason", "").strip()
        if set(entry) != {"what", "reason"} or len(reason) < REASON_CHARS_MIN:
            raise SystemExit(f"{file.name}: a break has `what` and a `reason` that tells something: {entry}")
        if what in meant:
            raise SystemExit(f"{file.name}: declared twice: {what}")
        meant[what] = reason
    return meant


def verdict(old: dict, new: dict, meant: dict[str, str]) -> list[str]:
    """What is to be put right, as sentences; nothing when all is well."""
    found = breaks(old, new)
    undeclared = [sentence for sentence in found if sentence not in meant]
    stale = [f"declared, but no break: {sentence}" for sentence in meant if sentence not in found]
    return undeclared + stale


def main(arguments: list[str]) -> None:
    paths = [Path(argument) for argument in arguments]
    usual = [HERE / "openapi.json", HERE / "released", HERE / "breaking.toml", HERE / "compatibility" / "released.sha256"]
    document, released, list_of_breaks, checksums = paths + usual[len(paths):]
    release = last_release(released)
    if touched := altered(released, checksums):
        print("What was released stays as it is:", *touched, sep="\n  ", file=sys.stderr)
        raise SystemExit("A break is declared in openapi/breaking.toml, not by editing the document that it breaks.")
    old, new = json.loads(release.read_text()), json.loads(document.read_text())
    meant = declared(list_of_breaks)
    problems = verdict(old, new, meant)
    if problems:
        print(f"{document.name} breaks clients of {release.stem}:", *problems, sep="\n  ", file=sys.stderr)
        raise SystemExit(
            "Keep what was promised, or declare the break in openapi/breaking.toml with the sentence above as `what`."
        )
    print(f"{len(operations(old))} operations of {release.stem} are as they were, but for {len(meant)} declared breaks")


if __name__ == "__main__":
    main(sys.argv[1:])
