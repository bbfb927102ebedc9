"""Written by hand, hence compared with the document that everything else is made of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, is_typeddict

import context_api_client
import httpx
import pytest
from context_api_client import types

#: For people, proxies and browsers.
NOT_OFFERED = {
    "follow_operation",
    "get_error_code",
    "get_health",
    "get_liveness",
    "get_openapi",
    "get_readiness",
}
#: Streams, of which there are no generated functions.
BY_HAND = {"export_contexts", "import_contexts"}


@pytest.fixture(scope="module")
def document(url: str) -> dict[str, Any]:
    document: dict[str, Any] = httpx.get(f"{url}/openapi.json", timeout=10).json()
    return document


def test_every_operation_has_a_method(document: dict[str, Any]) -> None:
    operations = {
        operation["operationId"]
        for path in document["paths"].values()
        for operation in path.values()
        if "operationId" in operation
    }
    written = " ".join(file.read_text() for file in Path(context_api_client.__file__).parent.glob("_async/*.py"))
    assert operations - set(re.findall(r"(\w+)\.asyncio_detailed\b", written)) == NOT_OFFERED | BY_HAND


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("NewContext", "ContextInput"),
        ("ContextPatch", "ContextPatch"),
        ("BatchOperation", "BatchOperationInput"),
        ("Search", "Search"),
        ("Recency", "SearchRecency"),
        ("Weights", "SearchWeights"),
        ("Pack", "Pack"),
        ("Budget", "PackBudget"),
        ("Quota", "PackQuota"),
        ("Selection", "RetryEmbeddings"),
        ("Count", "Count"),
        ("CreateApiKey", "CreateApiKey"),
        ("FillSpace", "CreateEmbeddingSpace"),
        ("FillSpace", "ChangeEmbeddingSpace"),
    ],
)
def test_types_have_the_fields_of_the_document(document: dict[str, Any], ours: str, theirs: str) -> None:
    schemas = document["components"]["schemas"]
    kind = getattr(types, ours)
    assert is_typeddict(kind)
    assert set(kind.__annotations__) == set(schemas[theirs]["properties"])
    assert kind.__required_keys__ == set(schemas[theirs].get("required", []))
