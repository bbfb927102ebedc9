"""The life of contexts, by the synchronous client."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from importlib.metadata import version
from uuid import UUID, uuid4

import httpx
import pytest
from context_api_client import (
    ContextApi,
    ErrorCode,
    InvalidRequest,
    NotFound,
    PreconditionFailed,
    Unauthenticated,
)


def test_has_the_version_of_the_service(url: str) -> None:
    assert httpx.get(f"{url}/health", timeout=10).json()["version"] == version("context-api-client")


def test_writes_reads_and_changes(api: ContextApi, user: UUID) -> None:
    ends = datetime.now(timezone.utc) + timedelta(days=1)
    made = api.contexts.create(
        user_id=user, context_type="note", content={"body": "Tapirs swim."}, metadata={"source": "book"}, expires_at=ends
    )
    assert (made.version, made.text, made.metadata["source"], made.expires_at) == (1, "Tapirs swim.", "book", ends)

    patched = api.contexts.patch(made.id, metadata={"source": None, "seen": True}, if_version=1)
    assert (patched.version, patched.metadata.to_dict()) == (2, {"seen": True})
    assert [old.context.version for old in api.contexts.versions(made.id)] == [1]
    assert api.contexts.get(made.id, as_of=made.updated_at).version == 1

    replaced = api.contexts.replace(made.id, user_id=user, context_type="note", content="Tapirs dive.")
    assert (replaced.version, replaced.text) == (3, "Tapirs dive.")
    api.contexts.delete(made.id, if_version=3)
    with pytest.raises(NotFound) as gone:
        api.contexts.get(made.id)
    assert gone.value.code is ErrorCode.CONTEXT_NOT_FOUND
    assert api.contexts.restore(made.id, version=1).text == "Tapirs swim."
    assert api.contexts.count(user_id=user) == 1
    api.contexts.delete(made.id, purge=True)
    assert api.contexts.count(user_id=user) == 0


def test_finds_and_packs(api: ContextApi, user: UUID) -> None:
    for text, source in (("The quokka smiles.", "book"), ("The quokka naps.", "film")):
        api.contexts.create(
            user_id=user, context_type="note", content=text, metadata={"source": source}, wait_until_ready=True
        )
    found = api.contexts.search(query="quokka", user_id=user, filter={"metadata.source": {"$in": ["film"]}})
    assert [hit.context.text for hit in found.data] == ["The quokka naps."]
    assert found.degraded == []
    packed = api.contexts.pack(query="quokka", user_id=user, budget={"max_tokens": 100}, format="markdown")
    assert "smiles" in packed.text
    assert "naps" in packed.text
    assert len(packed.citations) == 2


def test_pages_through(api: ContextApi, user: UUID) -> None:
    results = api.contexts.batch(
        [
            {"op": "create", "context": {"user_id": user, "context_type": "page", "content": n, "text": ""}}
            for n in range(5)
        ]
    )
    assert [result.status for result in results] == [201] * 5
    listed = api.contexts.list(user_id=user, limit=2)
    assert [context.content for context in listed] == [4, 3, 2, 1, 0]
    assert [len(page.data) for page in listed.by_page()] == [2, 2, 1]
    cursor = next(listed.by_page()).next_cursor
    assert [context.content for context in api.contexts.list(user_id=user, cursor=cursor)] == [2, 1, 0]
    assert [context.content for context in api.contexts.list(user_id=user, filter={"content": {"$gte": 3}})] == [4, 3]


def test_tells_errors_apart(api: ContextApi, user: UUID, url: str) -> None:
    made = api.contexts.create(user_id=user, context_type="note", content="one", text="")
    with pytest.raises(PreconditionFailed) as stale:
        api.contexts.patch(made.id, content="two", if_version=7)
    assert stale.value.code == "precondition_failed"
    assert stale.value.request_id

    with pytest.raises(InvalidRequest) as invalid:
        api.contexts.create(user_id=user, context_type="note", content="one", ttl_seconds=0)
    assert (invalid.value.status, invalid.value.code) == (400, ErrorCode.INVALID_REQUEST)
    assert [field.pointer for field in invalid.value.fields] == ["/ttl_seconds"]

    # What the types forbid is not dropped on the way, but judged by the service.
    with pytest.raises(InvalidRequest):
        api.contexts.create(user_id=user, context_type="note", content="one", colour="red")  # type: ignore[call-arg]

    name = str(uuid4())
    first = api.contexts.create(user_id=user, context_type="note", content="a", text="", idempotency_key=name)
    again = api.contexts.create(user_id=user, context_type="note", content="a", text="", idempotency_key=name)
    assert again.id == first.id
    with pytest.raises(InvalidRequest) as reused:
        api.contexts.create(user_id=user, context_type="note", content="b", text="", idempotency_key=name)
    assert reused.value.code is ErrorCode.IDEMPOTENCY_KEY_REUSED

    with ContextApi(url, "ctx_nobody") as stranger, pytest.raises(Unauthenticated):
        stranger.usage()


def test_tells_nobody_its_key(api: ContextApi, key: str) -> None:
    api.usage()
    assert key not in repr(api.raw)
    assert key not in repr(api.raw.with_headers({"X-Trace": "1"}))
    assert key not in repr(api.raw.get_httpx_client().headers)


def test_does_not_fail_by_a_code_of_the_future() -> None:
    assert ErrorCode("too_purple") == "too_purple"
    assert ErrorCode("invalid_json") is ErrorCode.INVALID_JSON
    assert ErrorCode("invalid_json") in {"invalid_json"}


def test_reaches_what_is_around(api: ContextApi, user: UUID) -> None:
    made = api.api_keys.create(name="sdk", scopes=["read"], user_id=user)
    assert made.id in [entry.id for entry in api.api_keys.list(limit=1)]
    api.api_keys.revoke(made.id)
    assert api.usage().embedding.failed == 0
    assert api.operations.erase_user(user).status in {"succeeded", "running", "queued"}
    assert [entry.action for entry in api.audit_log.list(target_id=made.id)]
    assert any(tenant.name == "default" for tenant in api.tenants.list())
    assert [space.status for space in api.embedding_spaces.list()] == ["active"]
