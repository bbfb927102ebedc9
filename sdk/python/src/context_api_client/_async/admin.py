"""For admins and operators: keys, tenants, the audit log."""

from __future__ import annotations

from typing import Unpack

from .. import types
from .._answers import expect, expect_secret
from ..generated.api.api_keys import create_api_key, list_api_keys, revoke_api_key, rotate_api_key
from ..generated.api.audit import list_audit_log
from ..generated.api.tenants import create_tenant, list_tenants
from ..generated.client import AuthenticatedClient
from ..generated.models import (
    ApiKey,
    ApiKeyPage,
    AuditEntry,
    AuditPage,
    CreateApiKey,
    CreatedApiKey,
    CreateTenant,
    RotateApiKey,
    Tenant,
    TenantPage,
)
from ..generated.types import UNSET
from .._requests import body, optional, uuid
from .pages import AsyncPages


class AsyncApiKeys:
    """All about API keys, as ``api.api_keys``."""

    def __init__(self, client: AuthenticatedClient) -> None:
        self._client = client

    def list(self, *, limit: int | None = None, cursor: str | None = None) -> AsyncPages[ApiKey]:
        """Without their secrets."""
        return AsyncPages(
            ApiKeyPage, list_api_keys.asyncio_detailed, client=self._client, limit=optional(limit), cursor=optional(cursor)
        )

    async def create(self, *, idempotency_key: str | None = None, **key: Unpack[types.CreateApiKey]) -> CreatedApiKey:
        """The answer alone has the secret; raises ``SecretLost`` if that was in an answer that was lost."""
        answer = await create_api_key.asyncio_detailed(
            client=self._client, body=body(CreateApiKey, key), idempotency_key=optional(idempotency_key)
        )
        return expect_secret(answer)

    async def rotate(
        self, id: types.Id, *, overlap_seconds: int | None = None, idempotency_key: str | None = None
    ) -> CreatedApiKey:
        """Makes another key in its place; the old one holds for the overlap. Raises as ``create`` does."""
        answer = await rotate_api_key.asyncio_detailed(
            uuid(id),
            client=self._client,
            body=body(RotateApiKey, {} if overlap_seconds is None else {"overlap_seconds": overlap_seconds}),
            idempotency_key=optional(idempotency_key),
        )
        return expect_secret(answer)

    async def revoke(self, id: types.Id) -> None:
        """It is of no use from now on."""
        await revoke_api_key.asyncio_detailed(uuid(id), client=self._client)


class AsyncTenants:
    """All about tenants, as ``api.tenants``."""

    def __init__(self, client: AuthenticatedClient) -> None:
        self._client = client

    def list(self, *, limit: int | None = None, cursor: str | None = None) -> AsyncPages[Tenant]:
        """In the order of creation."""
        return AsyncPages(
            TenantPage, list_tenants.asyncio_detailed, client=self._client, limit=optional(limit), cursor=optional(cursor)
        )

    async def create(self, name: str, *, idempotency_key: str | None = None) -> Tenant:
        """Without a key: make one with ``api_keys.create(tenant_id=…)``."""
        answer = await create_tenant.asyncio_detailed(
            client=self._client, body=CreateTenant(name=name), idempotency_key=optional(idempotency_key)
        )
        return expect(Tenant, answer)


class AsyncAuditLog:
    """Who did what, as ``api.audit_log``."""

    def __init__(self, client: AuthenticatedClient) -> None:
        self._client = client

    def list(
        self, *, target_id: types.Id | None = None, limit: int | None = None, cursor: str | None = None
    ) -> AsyncPages[AuditEntry]:
        """Newest first; of one thing, if one is named."""
        return AsyncPages(
            AuditPage,
            list_audit_log.asyncio_detailed,
            client=self._client,
            target_id=UNSET if target_id is None else uuid(target_id),
            limit=optional(limit),
            cursor=optional(cursor),
        )
