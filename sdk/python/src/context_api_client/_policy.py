"""When a request is sent again. One place for what is safe and what may help, for both kinds of clients."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
from tenacity import RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential

from .errors import ApiError, ConnectionFailed

#: Answers that a later attempt may not get.
_TRANSIENT_STATUSES = {429, 502, 503, 504}
#: Of these the service says that nothing was done.
_NOTHING_DONE = {"rate_limited", "too_many_searches", "overloaded", "database_busy"}
#: POSTs that write nothing.
_READING_POST = re.compile(r"/(search|pack|count|compare)$")


@dataclass(frozen=True)
class Retry:
    """How often a request is sent again, and how long to wait before."""

    #: 0 for never.
    times: int = 3
    #: Seconds of the first pause, at most; each further one may be twice as long.
    pause: float = 0.25
    #: The longest pause. When the service asks for more, its error is raised instead.
    pause_max: float = 30.0


class Attempts:
    """The attempts of one request, for tenacity: what it is told, and what it has to know."""

    def __init__(self, retry: Retry, *, is_repeatable: bool) -> None:
        self._retry = retry
        self._is_repeatable = is_repeatable
        self._backoff = wait_random_exponential(multiplier=retry.pause, max=retry.pause_max)
        #: Whether the answer to an earlier attempt that may have been carried out was lost.
        self.may_be_done = False

    def settings(self) -> dict[str, Any]:
        """Arguments for ``Retrying`` or ``AsyncRetrying``."""
        return {
            "retry": retry_if_exception(self._should_go_on),
            "stop": stop_after_attempt(self._retry.times + 1),
            "wait": self._pause,
            "reraise": True,
        }

    def _should_go_on(self, error: BaseException) -> bool:
        undone = _is_undone(error)
        self.may_be_done = self.may_be_done or not undone
        return _asked_pause(error) <= self._retry.pause_max and _is_transient(error) and (self._is_repeatable or undone)

    def _pause(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return _asked_pause(error) + self._backoff(state)


def name_write(request: httpx.Request) -> None:
    """Gives a write a name of its own, unless it has one: the service then does it once, however often it is sent."""
    if request.method == "POST" and not _READING_POST.search(request.url.path):
        request.headers.setdefault("Idempotency-Key", str(uuid4()))


def is_repeatable(request: httpx.Request) -> bool:
    """False for a conditional change: sent again, it would meet the version that it has made itself, and be refused."""
    return request.method in {"GET", "POST"} or "If-Match" not in request.headers


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, ApiError):
        return error.status in _TRANSIENT_STATUSES or error.code == "idempotency_key_in_flight"
    return isinstance(error, ConnectionFailed)


def _is_undone(error: BaseException) -> bool:
    if isinstance(error, ApiError):
        return error.code in _NOTHING_DONE
    return isinstance(error.__cause__, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout))


def _asked_pause(error: BaseException | None) -> float:
    return (error.retry_after or 0.0) if isinstance(error, ApiError) else 0.0
