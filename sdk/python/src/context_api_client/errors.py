"""What can go wrong, as exceptions of their own, each with the service's stable ``code``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from .generated.models import CreatedApiKey, ErrorCode, FieldProblem, Operation, ProblemDetails
from .generated.types import Unset


class ContextApiError(Exception):
    """Anything that this package raises of its own."""


class ConnectionFailed(ContextApiError):
    """No answer came: no connection, a broken one, or none in time. Whether the request was carried out is not known."""


class UnexpectedAnswer(ContextApiError):
    """The answer is none that the service gives, so it came from somewhere else: see whether ``base_url`` is right."""


class StillRunning(ContextApiError, TimeoutError):
    """An operation had not ended in the time that was given to wait for it. It goes on."""

    def __init__(self, operation: Operation) -> None:
        super().__init__(f"the operation {operation.id} is {operation.status} and goes on; it was not waited for any longer")
        self.operation = operation


class SecretLost(ContextApiError):
    """An API key was made, and its secret was in an earlier answer alone, which was lost. Nobody can use it: rotate
    ``api_key.id`` for one with a secret, or revoke it.
    """

    def __init__(self, api_key: CreatedApiKey) -> None:
        super().__init__(
            f"the API key {api_key.id} was made, but the answer with its secret was lost: rotate it by this id, or revoke it"
        )
        self.api_key = api_key


class ApiError(ContextApiError):
    """The service answered, and the answer is an error."""

    def __init__(
        self,
        status: int,
        code: ErrorCode | None,
        problem: ProblemDetails | None,
        request_id: str | None,
        retry_after: float | None,
    ) -> None:
        super().__init__(f"{problem.title} ({status} {code}): {problem.detail}" if problem else f"HTTP status {status}")
        self.status = status
        #: Stable. None when it was not the service that answered, but a proxy.
        self.code = code
        self.problem = problem
        #: Quote it to the operators.
        self.request_id = request_id
        #: So many seconds the service asked to be left alone.
        self.retry_after = retry_after

    @property
    def fields(self) -> Sequence[FieldProblem]:
        """What is wrong with which field."""
        if self.problem is None or isinstance(self.problem.errors, Unset):
            return []
        return self.problem.errors


class InvalidRequest(ApiError):
    """The request can never succeed as it is; ``fields`` may say why."""


class Unauthenticated(ApiError):
    """The API key is missing, wrong, expired or revoked."""


class PermissionDenied(ApiError):
    """The API key may not do this."""


class NotFound(ApiError):
    """There is none that this key can reach."""


class Conflict(ApiError):
    """It does not go with what is there."""


class PreconditionFailed(ApiError):
    """Somebody else was faster: read again, decide again."""


class TooManyRequests(ApiError):
    """Nothing was done; it was too much at once."""


class Unavailable(ApiError):
    """The service, or something that it needs, is away or busy."""


class ServiceFailed(ApiError):
    """A defect of the service."""


_BY_STATUS: dict[int, type[ApiError]] = {
    400: InvalidRequest,
    401: Unauthenticated,
    403: PermissionDenied,
    404: NotFound,
    405: InvalidRequest,
    409: Conflict,
    412: PreconditionFailed,
    413: InvalidRequest,
    415: InvalidRequest,
    422: InvalidRequest,
    429: TooManyRequests,
    500: ServiceFailed,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def error_of(status: int, headers: Any, body: bytes) -> ApiError:
    """The exception for an answer that is an error."""
    problem = _problem_of(body)
    return _BY_STATUS.get(status, ApiError)(
        status,
        problem.code if problem else None,
        problem,
        headers.get("x-request-id"),
        _seconds(headers.get("retry-after")),
    )


def error_of_redirect(status: int, headers: Any) -> UnexpectedAnswer:
    """The exception for an answer that sends elsewhere. None is followed: the API key would go there, too, and what was a
    write may arrive as a GET.
    """
    return UnexpectedAnswer(f"nothing was done: HTTP status {status}, to {headers.get('location')}; correct base_url")


def _problem_of(body: bytes) -> ProblemDetails | None:
    try:
        return ProblemDetails.from_dict(json.loads(body))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _seconds(header: str | None) -> float | None:
    """Seconds or a date, by RFC 9110."""
    if header is None:
        return None
    if header.isdecimal():
        return float(header)
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(timezone.utc)).total_seconds())
    except (ValueError, TypeError):
        return None
