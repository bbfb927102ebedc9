"""The examples of the guides work, one after the other, as a reader would try them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

ADDRESS = '"http://127.0.0.1:8000"'
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("guide", ["README.md", "PROJECT.md"])
def test_examples_run(guide: str, url: str, key: str, user: UUID) -> None:
    examples = BLOCK.findall(Path(__file__).parent.with_name(guide).read_text(encoding="utf-8"))
    assert examples
    # What the guides take for granted.
    names: dict[str, Any] = {"URL": url, "KEY": key, "api_key": key, "user_id": user}
    for example in examples:
        exec(compile(example.replace(ADDRESS, "URL"), guide, "exec"), names)
