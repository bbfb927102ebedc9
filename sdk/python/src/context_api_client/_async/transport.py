"""Sends requests: again when that is safe and may help, and with each error as an exception.

It stands below the generated code, so what is true of one request is true of all.
"""

from __future__ import annotations

import httpx
from tenacity import AsyncRetrying

from .._policy import Attempts, Retry, is_repeatable, name_write
from ..errors import ConnectionFailed, NotFound, error_of, error_of_redirect

#: Set in the extensions of a request whose answer is a stream.
STREAMED = "context_api_streamed"


class AsyncTransport(httpx.AsyncBaseTransport):
    """Wraps the transport that does the sending."""

    def __init__(self, inner: httpx.AsyncBaseTransport, retry: Retry) -> None:
        self._inner = inner
        self._retry = retry

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """All attempts. Raises what is no success."""
        name_write(request)
        if not isinstance(request.stream, httpx.ByteStream):
            # A stream is gone once it is sent; whoever made it may make another one.
            return await self._once(request)
        attempts = Attempts(self._retry, is_repeatable=is_repeatable(request))
        async for attempt in AsyncRetrying(**attempts.settings()):
            with attempt:
                try:
                    return await self._once(request)
                except NotFound:
                    # It was there before the attempt whose answer was lost.
                    if request.method == "DELETE" and attempts.may_be_done:
                        return httpx.Response(204)
                    raise
        raise AssertionError("tenacity returns or raises")

    async def _once(self, request: httpx.Request) -> httpx.Response:
        try:
            response = await self._inner.handle_async_request(request)
            # So that an answer that breaks off is a failed attempt.
            if response.status_code >= 300 or STREAMED not in request.extensions:
                await response.aread()
        except httpx.TransportError as error:
            raise ConnectionFailed(f"no answer: {type(error).__name__}: {error}") from error
        if response.status_code >= 400:
            raise error_of(response.status_code, response.headers, response.content)
        if response.status_code >= 300 and response.status_code != 304:
            raise error_of_redirect(response.status_code, response.headers)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()
