"""Import and export: streams of any length, of which only what is under way is in memory."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from time import monotonic
from typing import Any
from uuid import uuid4

import httpx
from tenacity import AsyncRetrying

from ..generated.client import AuthenticatedClient
from ..generated.models import ImportAnswer
from .._policy import Attempts, Retry
from .._requests import json_text, jsonable
from ..errors import ConnectionFailed
from .transport import STREAMED

#: So much is put together before it is sent; the service stores about as much at a time.
_CHUNK_BYTES_MIN = 65_536
#: Or what there is after so long: the service ends an import of which nothing comes for 30 seconds.
_CHUNK_SECONDS_MAX = 5.0


async def import_contexts(
    client: AuthenticatedClient,
    retry: Retry,
    lines: Iterable[Any] | AsyncIterable[Any],
    idempotency_key: str | None,
    first_line: int | None,
) -> ImportAnswer:
    """Sends the lines as they come."""
    http = client.get_async_httpx_client()
    headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": idempotency_key or str(uuid4())}
    params = {} if first_line is None else {"first_line": first_line}
    once = isinstance(lines, AsyncIterator | Iterator)
    attempts = Attempts(Retry(times=0) if once else retry, is_repeatable=True)
    async for attempt in AsyncRetrying(**attempts.settings()):
        with attempt:
            response = await http.post("/v1/contexts/import", content=ndjson(lines), headers=headers, params=params)
            return ImportAnswer.from_dict(response.json())
    raise AssertionError("tenacity returns or raises")


async def export_contexts(
    client: AuthenticatedClient, retry: Retry, selection: Mapping[str, Any]
) -> AsyncIterator[dict[str, Any]]:
    """Goes on where it was when the stream breaks off, with contexts as of the same moment."""
    http = client.get_async_httpx_client()
    params = {name: _parameter(value) for name, value in selection.items() if value is not None}
    breaks = 0
    while True:
        request = http.build_request("GET", "/v1/contexts/export", params=params, extensions={STREAMED: True})
        response = await http.send(request, stream=True)
        try:
            # What follows a break has to be of the same moment.
            params["as_of"] = response.headers["Context-As-Of"]
            async for line in _lines_of(response):
                context: dict[str, Any] = json.loads(line)
                yield context
                params["after"] = context["id"]
                breaks = 0
            return
        except httpx.TransportError as error:
            breaks += 1
            if breaks > retry.times:
                raise ConnectionFailed(f"the export broke off: {error}") from error
        finally:
            await response.aclose()


async def _lines_of(response: httpx.Response) -> AsyncIterator[bytes]:
    """Only a line feed ends a line: within JSON there may be other characters that Python, too, takes for line breaks."""
    rest = b""
    async for piece in response.aiter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line
    if rest:
        raise httpx.RemoteProtocolError("the stream ended within a line")


async def ndjson(
    lines: Iterable[Any] | AsyncIterable[Any], clock: Callable[[], float] = monotonic
) -> AsyncIterator[bytes]:
    """As few pieces as need be."""
    chunk = bytearray()
    sent = clock()
    async for line in _each(lines):
        chunk += json_text(line).encode() + b"\n"
        if len(chunk) >= _CHUNK_BYTES_MIN or clock() - sent >= _CHUNK_SECONDS_MAX:
            yield bytes(chunk)
            chunk.clear()
            sent = clock()
    if chunk:
        yield bytes(chunk)


async def _each(lines: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(lines, AsyncIterable):
        async for line in lines:
            yield line
    else:
        for line in lines:
            yield line


def _parameter(value: Any) -> str:
    plain = jsonable(value)
    return plain if isinstance(plain, str) else json_text(plain)
