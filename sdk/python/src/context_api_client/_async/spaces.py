"""Changing the embedding model while everything goes on. For operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from .. import types
from .._answers import expect
from ..generated.api.embedding_spaces import (
    activate_embedding_space,
    change_embedding_space,
    compare_embedding_space,
    create_embedding_space,
    delete_embedding_space,
    get_embedding_space,
    list_embedding_space_failures,
    list_embedding_spaces,
    retry_embedding_space,
)
from ..generated.client import AuthenticatedClient
from ..generated.models import (
    ActivateEmbeddingSpace,
    ChangeEmbeddingSpace,
    CompareEmbeddingSpace,
    Comparison,
    CreateEmbeddingSpace,
    EmbeddingSpace,
    EmbeddingSpaceList,
    SpaceFailure,
    SpaceFailureList,
)
from .._requests import body, optional


class AsyncEmbeddingSpaces:
    """All about embedding spaces, as ``api.embedding_spaces``."""

    def __init__(self, client: AuthenticatedClient) -> None:
        self._client = client

    async def list(self) -> Sequence[EmbeddingSpace]:
        """All of them."""
        return expect(EmbeddingSpaceList, await list_embedding_spaces.asyncio_detailed(client=self._client)).data

    async def get(self, id: int) -> EmbeddingSpace:
        """How far it is."""
        return expect(EmbeddingSpace, await get_embedding_space.asyncio_detailed(id, client=self._client))

    async def create(self, *, idempotency_key: str | None = None, **how: Unpack[types.FillSpace]) -> EmbeddingSpace:
        """For the model of the next provider; it is filled from now on."""
        answer = await create_embedding_space.asyncio_detailed(
            client=self._client, body=body(CreateEmbeddingSpace, how), idempotency_key=optional(idempotency_key)
        )
        return expect(EmbeddingSpace, answer)

    async def change(self, id: int, **how: Unpack[types.FillSpace]) -> EmbeddingSpace:
        """Its pace, or a pause."""
        answer = await change_embedding_space.asyncio_detailed(
            id, client=self._client, body=body(ChangeEmbeddingSpace, how)
        )
        return expect(EmbeddingSpace, answer)

    async def activate(self, id: int, *, force: bool = False, idempotency_key: str | None = None) -> EmbeddingSpace:
        """Searches use it from now on."""
        answer = await activate_embedding_space.asyncio_detailed(
            id,
            client=self._client,
            body=ActivateEmbeddingSpace(force=force),
            idempotency_key=optional(idempotency_key),
        )
        return expect(EmbeddingSpace, answer)

    async def compare(self, id: int, queries: Sequence[str], *, limit: int | None = None) -> Comparison:
        """What it finds beside what the active one finds."""
        fields: dict[str, Any] = {"queries": queries}
        if limit is not None:
            fields["limit"] = limit
        answer = await compare_embedding_space.asyncio_detailed(
            id, client=self._client, body=body(CompareEmbeddingSpace, fields)
        )
        return expect(Comparison, answer)

    async def failures(self, id: int) -> Sequence[SpaceFailure]:
        """What could not be embedded for it."""
        return expect(SpaceFailureList, await list_embedding_space_failures.asyncio_detailed(id, client=self._client)).data

    async def retry(self, id: int, *, idempotency_key: str | None = None) -> EmbeddingSpace:
        """Tries its failed embeddings again."""
        answer = await retry_embedding_space.asyncio_detailed(
            id, client=self._client, idempotency_key=optional(idempotency_key)
        )
        return expect(EmbeddingSpace, answer)

    async def delete(self, id: int) -> None:
        """With all its embeddings."""
        await delete_embedding_space.asyncio_detailed(id, client=self._client)
