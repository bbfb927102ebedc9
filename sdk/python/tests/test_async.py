"""The asynchronous half is what the other is made of; what differs is how it is called."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from context_api_client import AsyncContextApi, PreconditionFailed


def test_does_all_of_it_asynchronously(url: str, key: str, user: UUID) -> None:
    asyncio.run(use(url, key, user))


async def use(url: str, key: str, user: UUID) -> None:
    async def lines() -> AsyncIterator[dict[str, Any]]:
        for n in range(3):
            yield {"user_id": user, "context_type": "line", "content": n, "text": ""}

    async with AsyncContextApi(url, key) as api:
        made = await asyncio.gather(
            *(api.contexts.create(user_id=user, context_type="note", content=f"Ibex {n}.") for n in range(3))
        )
        found = await api.contexts.search(query="ibex", user_id=user, mode="keyword")
        assert {hit.context.id for hit in found.data} == {context.id for context in made}
        listed = [context.id async for context in api.contexts.list(user_id=user, limit=2)]
        assert sorted(listed) == sorted(context.id for context in made)
        with pytest.raises(PreconditionFailed):
            await api.contexts.delete(made[0].id, if_version=9)
        assert (await api.contexts.import_(lines())).created == 3
        exported = [line["id"] async for line in api.contexts.export(user_id=user, context_type="line")]
        assert len(exported) == 3
