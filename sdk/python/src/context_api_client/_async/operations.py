"""Long work: seeing it, waiting for it, stopping it; and the erasure of a user, which is such work."""

from __future__ import annotations

from asyncio import sleep
from time import monotonic

from .. import types
from .._answers import expect
from ..generated.api.operations import cancel_operation, erase_user, get_operation, list_operations, retry_operation
from ..generated.client import AuthenticatedClient
from ..generated.models import Operation, OperationPage
from .._requests import optional, uuid
from ..errors import StillRunning
from .pages import AsyncPages

_FINAL = {"succeeded", "failed", "cancelled"}
_POLL_SECONDS = 1.0


class AsyncOperations:
    """All about long work, as ``api.operations``."""

    def __init__(self, client: AuthenticatedClient) -> None:
        self._client = client

    def list(self, *, limit: int | None = None, cursor: str | None = None) -> AsyncPages[Operation]:
        """Newest first."""
        return AsyncPages(
            OperationPage,
            list_operations.asyncio_detailed,
            client=self._client,
            limit=optional(limit),
            cursor=optional(cursor),
        )

    async def get(self, id: types.Id) -> Operation:
        """How it is now."""
        return expect(Operation, await get_operation.asyncio_detailed(uuid(id), client=self._client))

    async def wait(self, id: types.Id, *, timeout: float | None = 600.0) -> Operation:
        """Asks until it has ended, well or not: look at ``status``.

        Raises ``StillRunning`` after ``timeout`` seconds, None for never; what is asked then is still waited for.
        """
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            operation = await self.get(id)
            if operation.status in _FINAL:
                return operation
            if deadline is not None and monotonic() >= deadline:
                raise StillRunning(operation)
            await sleep(_POLL_SECONDS)

    async def cancel(self, id: types.Id, *, idempotency_key: str | None = None) -> Operation:
        """Stops it at its next step."""
        answer = await cancel_operation.asyncio_detailed(
            uuid(id), client=self._client, idempotency_key=optional(idempotency_key)
        )
        return expect(Operation, answer)

    async def retry(self, id: types.Id, *, idempotency_key: str | None = None) -> Operation:
        """Starts one again that has failed or was cancelled."""
        answer = await retry_operation.asyncio_detailed(
            uuid(id), client=self._client, idempotency_key=optional(idempotency_key)
        )
        return expect(Operation, answer)

    async def erase_user(self, user_id: types.Id) -> Operation:
        """Erases everything of a user, for good. Only an operation that has succeeded is a proof."""
        return expect(Operation, await erase_user.asyncio_detailed(uuid(user_id), client=self._client))
