"""The documents of the releases: which is the last one, and whether all are still what was released."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path


def last_release(folder: Path) -> Path:
    def version(file: Path) -> tuple[int, ...]:
        if not re.fullmatch(r"\d+\.\d+\.\d+", file.stem):
            raise SystemExit(f"{file} is not named after a version, such as 1.2.3.json")
        return tuple(map(int, file.stem.split(".")))

    files = sorted(folder.glob("*.json"), key=version)
    if not files:
        raise SystemExit(f"{folder} has no released document to compare with")
    return files[-1]


def altered(folder: Path, checksums: Path) -> list[str]:
    """What the list of checksums and the documents do not agree on, as sentences. Who edits a released document would move what
    is compared with, and see no break."""
    lines = [line for line in checksums.read_text().splitlines() if not line.startswith("#")]
    listed = {name: checksum for checksum, name in (line.split(maxsplit=1) for line in lines)}
    found = [f"{checksums.name} lists a document twice"] if len(listed) < len(lines) else []
    found += [f"{name} is gone, but {checksums.name} lists it" for name in listed if not (folder / name).exists()]
    for file in sorted(folder.glob("*.json")):
        checksum = hashlib.sha256(file.read_bytes()).hexdigest()
        if file.name not in listed:
            found.append(f"{file.name} is not in {checksums.name}; a release adds the line: {checksum}  {file.name}")
        elif checksum != listed[file.name]:
            found.append(f"{file.name} is not what was released")
    return found
