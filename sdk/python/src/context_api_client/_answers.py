"""Taking the answers of the generated functions."""

from __future__ import annotations

from typing import Any, TypeVar

from .errors import SecretLost, UnexpectedAnswer
from .generated.models import CreatedApiKey
from .generated.types import Response

T = TypeVar("T")


def expect(kind: type[T], response: Response[Any]) -> T:
    """The transport raises whatever is no success, so an answer without ``kind`` is none of this service."""
    if not isinstance(response.parsed, kind):
        raise UnexpectedAnswer(
            f"the answer, of HTTP status {response.status_code.value}, is no {kind.__name__}; see whether base_url is right"
        )
    return response.parsed


def expect_secret(response: Response[Any]) -> CreatedApiKey:
    """A key that was made, with its secret, which the service says once: to a request that is repeated it says null."""
    made = expect(CreatedApiKey, response)
    if made.key is None:
        raise SecretLost(made)
    return made
