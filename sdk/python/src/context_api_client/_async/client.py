"""The way in: one object for one service and one key."""

from __future__ import annotations

from types import TracebackType

import httpx

from .._answers import expect
from ..generated.api.usage import get_usage
from ..generated.models import Usage
from .._policy import Retry
from .._proxies import proxy_for
from .._raw import RawClient
from .admin import AsyncApiKeys, AsyncAuditLog, AsyncTenants
from .contexts import AsyncContexts
from .operations import AsyncOperations
from .spaces import AsyncEmbeddingSpaces
from .transport import AsyncTransport

#: The service gives up after 30 seconds, and should be the one to say so.
_TIMEOUT = httpx.Timeout(35.0, connect=10.0)


class AsyncContextApi:
    """A connection to Context API; close it, or use it in ``with``."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        timeout: httpx.Timeout = _TIMEOUT,
        retry: Retry = Retry(),
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        sender = transport or httpx.AsyncHTTPTransport(proxy=proxy_for(base_url))
        #: For the generated functions in ``raw``, for what the methods do not offer; it sends in the same way.
        self.raw = RawClient(
            base_url=base_url,
            token=api_key,
            timeout=timeout,
            httpx_args={"transport": AsyncTransport(sender, retry)},
        )
        self.contexts = AsyncContexts(self.raw, retry)
        self.operations = AsyncOperations(self.raw)
        self.api_keys = AsyncApiKeys(self.raw)
        self.tenants = AsyncTenants(self.raw)
        self.audit_log = AsyncAuditLog(self.raw)
        self.embedding_spaces = AsyncEmbeddingSpaces(self.raw)

    async def usage(self) -> Usage:
        """What is stored, and what waits for its embedding."""
        return expect(Usage, await get_usage.asyncio_detailed(client=self.raw))

    async def aclose(self) -> None:
        """Closes its connections."""
        await self.raw.get_async_httpx_client().aclose()

    async def __aenter__(self) -> AsyncContextApi:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
