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


@pytest.fixture
def api(url: str, key: str) -> Iterator[ContextApi]:
    with ContextApi(url, key) as api:
        yield api


@pytest.fixture
def user() -> UUID:
    return uuid4()
