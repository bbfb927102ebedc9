"""Contexts: writing, reading, finding and packing them."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from typing import Any, Literal, Unpack

from .. import types
from .._answers import expect
from ..generated.api.contexts import (
    count_contexts,
    create_context,
    delete_context,
    get_context,
    list_contexts,
    list_versions,
    patch_context,
    replace_context,
    restore_context,
    write_batch,
)
from ..generated.api.search import pack_contexts, search_contexts
from ..generated.api.usage import retry_embeddings
from ..generated.client import AuthenticatedClient
from ..generated.models import (
    Batch,
    BatchAnswer,
    BatchItemAnswer,
    Context,
    ContextInput,
    ContextPage,
    ContextPatch,
    ContextVersion,
    ContextVersionPage,
    Count,
    Counted,
    CreateContextIfNoneMatch,
    CreateContextWait,
    ImportAnswer,
    Pack,
    PackResponse,
    PatchContextWait,
    ReplaceContextWait,
    Restore,
    Retried,
    RetryEmbeddings,
    Search,
    SearchResponse,
)
from ..generated.types import UNSET
from .._policy import Retry
from .._requests import body, if_match, json_text, optional, time, uuid
from .bulk import export_contexts, import_contexts
from .pages import AsyncPages

Version = int | Literal["*"]


class AsyncContexts:
    """All about contexts, as ``api.contexts``."""

    def __init__(self, client: AuthenticatedClient, retry: Retry) -> None:
        self._client = client
        self._retry = retry

    async def create(
        self,
        *,
        if_new: bool = False,
        if_version: Version | None = None,
        wait_until_ready: bool = False,
        idempotency_key: str | None = None,
        **context: Unpack[types.NewContext],
    ) -> Context:
        """Makes a context, or updates the one of this user that has its ``key``.

        ``if_new``: only if there is no such one; ``if_version``: only if it is in this version, ``"*"`` for any.
        ``wait_until_ready``: answers when it is found by its meaning, too.
        """
        answer = await create_context.asyncio_detailed(
            client=self._client,
            body=body(ContextInput, context),
            wait=CreateContextWait.READY if wait_until_ready else UNSET,
            idempotency_key=optional(idempotency_key),
            if_match=if_match(if_version),
            if_none_match=CreateContextIfNoneMatch("*") if if_new else UNSET,
        )
        return expect(Context, answer)

    async def get(self, id: types.Id, *, as_of: types.Time | None = None) -> Context:
        """As it is, or was."""
        return expect(Context, await get_context.asyncio_detailed(uuid(id), client=self._client, as_of=time(as_of)))

    def list(
        self,
        *,
        user_id: types.Id | None = None,
        context_type: str | None = None,
        filter: types.Filter | None = None,
        as_of: types.Time | None = None,
        valid_at: types.Time | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> AsyncPages[Context]:
        """Newest first; ``limit`` per page."""
        return AsyncPages(
            ContextPage,
            list_contexts.asyncio_detailed,
            client=self._client,
            user_id=UNSET if user_id is None else uuid(user_id),
            context_type=optional(context_type),
            filter_=UNSET if filter is None else json_text(filter),
            as_of=time(as_of),
            valid_at=time(valid_at),
            limit=optional(limit),
            cursor=optional(cursor),
        )

    async def replace(
        self,
        id: types.Id,
        *,
        if_version: Version | None = None,
        wait_until_ready: bool = False,
        **context: Unpack[types.NewContext],
    ) -> Context:
        """What is left out is gone afterwards."""
        answer = await replace_context.asyncio_detailed(
            uuid(id),
            client=self._client,
            body=body(ContextInput, context),
            wait=ReplaceContextWait.READY if wait_until_ready else UNSET,
            if_match=if_match(if_version),
        )
        return expect(Context, answer)

    async def patch(
        self,
        id: types.Id,
        *,
        if_version: Version | None = None,
        wait_until_ready: bool = False,
        **changes: Unpack[types.ContextPatch],
    ) -> Context:
        """A JSON merge patch: what is left out stays, None removes."""
        answer = await patch_context.asyncio_detailed(
            uuid(id),
            client=self._client,
            body=body(ContextPatch, changes),
            wait=PatchContextWait.READY if wait_until_ready else UNSET,
            if_match=if_match(if_version),
        )
        return expect(Context, answer)

    async def delete(self, id: types.Id, *, purge: bool = False, if_version: Version | None = None) -> None:
        """Hides it; with ``purge`` it is gone for good, with its history."""
        await delete_context.asyncio_detailed(
            uuid(id), client=self._client, purge=purge or UNSET, if_match=if_match(if_version)
        )

    async def restore(
        self,
        id: types.Id,
        *,
        version: int | None = None,
        if_version: Version | None = None,
        idempotency_key: str | None = None,
    ) -> Context:
        """Brings a deleted context back, or makes it what it was in a version."""
        answer = await restore_context.asyncio_detailed(
            uuid(id),
            client=self._client,
            body=body(Restore, {} if version is None else {"version": version}),
            idempotency_key=optional(idempotency_key),
            if_match=if_match(if_version),
        )
        return expect(Context, answer)

    def versions(self, id: types.Id, *, limit: int | None = None, cursor: str | None = None) -> AsyncPages[ContextVersion]:
        """Superseded versions, newest first."""
        return AsyncPages(
            ContextVersionPage,
            list_versions.asyncio_detailed,
            id=uuid(id),
            client=self._client,
            limit=optional(limit),
            cursor=optional(cursor),
        )

    async def batch(
        self,
        operations: Sequence[types.BatchOperation],
        *,
        atomic: bool = False,
        idempotency_key: str | None = None,
    ) -> Sequence[BatchItemAnswer]:
        """Up to 1,000 writes. Look at each result: those that failed have an ``error``."""
        answer = await write_batch.asyncio_detailed(
            client=self._client,
            body=body(Batch, {"operations": operations, "atomic": atomic}),
            idempotency_key=optional(idempotency_key),
        )
        return expect(BatchAnswer, answer).results

    async def count(self, **which: Unpack[types.Count]) -> int:
        """How many there are."""
        answer = await count_contexts.asyncio_detailed(client=self._client, body=body(Count, which))
        return expect(Counted, answer).count

    async def search(self, **search: Unpack[types.Search]) -> SearchResponse:
        """By meaning, by words, or by both."""
        answer = await search_contexts.asyncio_detailed(client=self._client, body=body(Search, search))
        return expect(SearchResponse, answer)

    async def pack(self, **pack: Unpack[types.Pack]) -> PackResponse:
        """What a search finds as one text, within a budget of tokens."""
        answer = await pack_contexts.asyncio_detailed(client=self._client, body=body(Pack, pack))
        return expect(PackResponse, answer)

    async def retry_embeddings(self, *, idempotency_key: str | None = None, **which: Unpack[types.Selection]) -> Retried:
        """Puts failed embeddings back into the queue."""
        answer = await retry_embeddings.asyncio_detailed(
            client=self._client, body=body(RetryEmbeddings, which), idempotency_key=optional(idempotency_key)
        )
        return expect(Retried, answer)

    async def import_(
        self,
        lines: Iterable[types.ContextLine | dict[str, Any]] | AsyncIterable[types.ContextLine | dict[str, Any]],
        *,
        idempotency_key: str | None = None,
        first_line: int | None = None,
    ) -> ImportAnswer:
        """Stores any number of contexts. Look at ``failed`` of the answer.

        What can be gone through again, such as a list, is sent again after a failure, and nothing is stored twice by
        that. An iterator is sent once. No line may take 25 seconds to make: the service ends an import that is silent.
        """
        return await import_contexts(self._client, self._retry, lines, idempotency_key, first_line)

    def export(
        self,
        *,
        user_id: types.Id | None = None,
        context_type: str | None = None,
        filter: types.Filter | None = None,
        as_of: types.Time | None = None,
        after: types.Id | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """All contexts of one moment, oldest first, as lines for an import.

        It goes on by itself when the connection breaks.
        """
        return export_contexts(
            self._client,
            self._retry,
            {"user_id": user_id, "context_type": context_type, "filter": filter, "as_of": as_of, "after": after},
        )

