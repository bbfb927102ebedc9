"""What a network or a busy service does to requests, which a healthy one does not show on request."""

from __future__ import annotations

from collections.abc import Iterator

import httpx


class Cut(httpx.SyncByteStream):
    """An answer that breaks off after so many bytes."""

    def __init__(self, whole: httpx.SyncByteStream, size: int) -> None:
        self._whole = whole
        self._size = size

    def __iter__(self) -> Iterator[bytes]:
        left = self._size
        for chunk in self._whole:
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                raise httpx.ReadError("cut off")

    def close(self) -> None:
        self._whole.close()


class Faulty(httpx.BaseTransport):
    """Lets requests through to the service, the first ones with a fault each.

    ``refused``: not sent; ``lost``: carried out, but the answer is lost; a number: the answer is cut off after so many bytes;
    a response: the answer of somebody who does not carry it out.
    """

    def __init__(self, *faults: str | int | httpx.Response) -> None:
        self._inner = httpx.HTTPTransport()
        self._faults = iter(faults)
        self.requests: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        fault = next(self._faults, None)
        if isinstance(fault, httpx.Response):
            return fault
        if fault == "refused":
            raise httpx.ConnectError("refused")
        response = self._inner.handle_request(request)
        if fault == "lost":
            response.read()
            raise httpx.ReadError("lost")
        if isinstance(fault, int):
            assert isinstance(response.stream, httpx.SyncByteStream)
            response.stream = Cut(response.stream, fault)
        return response

    def close(self) -> None:
        self._inner.close()


def problem(status: int, code: str, retry_after: int) -> httpx.Response:
    """An answer of a service that is busy."""
    details = {"type": f"/errors/{code}", "title": "Busy", "status": status, "detail": "Later.", "code": code}
    return httpx.Response(status, json=details, headers={"Retry-After": str(retry_after)})
