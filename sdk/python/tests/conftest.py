"""A running service, and a user of its own for each test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from context_api_client import ContextApi


@pytest.fixture(scope="session")
def url() -> str:
    return os.environ["CONTEXT_API_URL"]


@pytest.fixture(scope="session")
def key() -> str:
    return os.environ["CONTEXT_API_KEY"]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service is on this machine, whatever the environment says of others."""
    for name in ("http_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def api(url: str, key: str) -> Iterator[ContextApi]:
    with ContextApi(url, key) as api:
        yield api


@pytest.fixture
def user() -> UUID:
    return uuid4()
