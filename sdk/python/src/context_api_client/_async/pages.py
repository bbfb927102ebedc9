"""Lists come in pages; a program mostly wants their entries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Generic, Protocol, TypeVar

from .._answers import expect

T = TypeVar("T")


class Page(Protocol[T]):
    """What every page has."""

    data: list[T]
    next_cursor: str | None
    has_more: bool


class AsyncPages(Generic[T]):
    """All entries of a list, fetched page by page while they are looked at."""

    def __init__(self, page_type: type[Page[T]], operation: Callable[..., Any], **arguments: Any) -> None:
        self._page_type = page_type
        self._operation = operation
        self._arguments = arguments

    async def by_page(self) -> AsyncIterator[Page[T]]:
        """The same, a page at a time. ``next_cursor`` of the last one seen goes on from there, at any later time."""
        arguments = dict(self._arguments)
        while True:
            page = expect(self._page_type, await self._operation(**arguments))
            yield page
            if page.next_cursor is None:
                return
            arguments["cursor"] = page.next_cursor

    async def __aiter__(self) -> AsyncIterator[T]:
        async for page in self.by_page():
            for entry in page.data:
                yield entry
