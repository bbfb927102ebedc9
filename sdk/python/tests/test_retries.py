"""What is sent again, and what is not."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from uuid import UUID

import httpx
import pytest
from context_api_client import ConnectionFailed, ContextApi, Retry, SecretLost, StillRunning, Unavailable, UnexpectedAnswer
from context_api_client.generated.api.contexts import get_context
from faults import Faulty, problem

QUICK = Retry(times=3, pause=0.01)


def faulty(url: str, key: str, *faults: str | int | httpx.Response) -> tuple[ContextApi, Faulty]:
    transport = Faulty(*faults)
    return ContextApi(url, key, retry=QUICK, transport=transport), transport


def test_a_write_whose_answer_is_lost_is_done_once(url: str, key: str, user: UUID) -> None:
    api, transport = faulty(url, key, "lost", 10)
    with api:
        made = api.contexts.create(user_id=user, context_type="note", content="once", text="")
        assert [context.id for context in api.contexts.list(user_id=user)] == [made.id]
    names = {request.headers.get("Idempotency-Key") for request in transport.requests[:3]}
    assert len(names) == 1
    assert None not in names


def test_gives_up_after_a_while(url: str, key: str) -> None:
    api, transport = faulty(url, key, *["refused"] * 9)
    with api, pytest.raises(ConnectionFailed):
        api.usage()
    assert len(transport.requests) == 4


def test_waits_as_long_as_it_is_asked(url: str, key: str) -> None:
    api, transport = faulty(url, key, problem(429, "rate_limited", 1))
    began = monotonic()
    with api:
        api.usage()
    assert monotonic() - began >= 1
    assert len(transport.requests) == 2


def test_does_not_wait_for_ever(url: str, key: str) -> None:
    api, transport = faulty(url, key, problem(503, "database_unavailable", 3600))
    with api, pytest.raises(Unavailable) as away:
        api.usage()
    assert away.value.retry_after == 3600
    assert len(transport.requests) == 1


def test_does_not_wait_for_ever_for_an_operation(url: str, key: str, api: ContextApi, user: UUID) -> None:
    ended = api.operations.wait(api.operations.erase_user(user).id)
    running = ended.to_dict() | {"status": "running", "finished_at": None}
    slow, transport = faulty(url, key, httpx.Response(200, json=running))
    with slow:
        with pytest.raises(StillRunning) as late:
            slow.operations.wait(ended.id, timeout=0)
        assert (late.value.operation.id, late.value.operation.status) == (ended.id, "running")
        assert isinstance(late.value, TimeoutError)
        # One that has ended has, however late it is asked.
        assert slow.operations.wait(ended.id, timeout=0).status == "succeeded"
    assert len(transport.requests) == 2


def test_a_conditional_change_is_sent_again_only_if_it_was_not_done(url: str, key: str, user: UUID) -> None:
    api, transport = faulty(url, key)
    with api:
        made = api.contexts.create(user_id=user, context_type="note", content=1, text="")
    api, transport = faulty(url, key, "refused", problem(503, "database_busy", 0), "lost")
    with api, pytest.raises(ConnectionFailed):
        api.contexts.patch(made.id, content=2, if_version=1)
    assert len(transport.requests) == 3


def test_a_delete_whose_answer_is_lost_has_worked(url: str, key: str, user: UUID) -> None:
    api, transport = faulty(url, key)
    with api:
        made = api.contexts.create(user_id=user, context_type="note", content=1, text="")
    api, transport = faulty(url, key, "lost")
    with api:
        api.contexts.delete(made.id)
    assert len(transport.requests) == 2


def test_a_key_whose_secret_is_lost_is_no_key(url: str, key: str, user: UUID) -> None:
    api, transport = faulty(url, key, "lost")
    with api, pytest.raises(SecretLost) as made:
        api.api_keys.create(name="sdk", scopes=["read"], user_id=user)
    assert str(made.value.api_key.id) in str(made.value)
    assert len(transport.requests) == 2

    api, transport = faulty(url, key, "lost")
    with api:
        with pytest.raises(SecretLost) as rotated:
            api.api_keys.rotate(made.value.api_key.id)
        assert rotated.value.api_key.id != made.value.api_key.id
        # As it says.
        usable = api.api_keys.rotate(rotated.value.api_key.id)
        assert usable.key is not None
        with ContextApi(url, usable.key) as reader:
            assert reader.contexts.count(user_id=user) == 0
        api.api_keys.revoke(usable.id)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_no_success(status: int, url: str, key: str, user: UUID) -> None:
    def elsewhere() -> httpx.Response:
        return httpx.Response(status, headers={"Location": "https://example.org/"})

    api, transport = faulty(url, key, elsewhere(), elsewhere(), elsewhere(), elsewhere())
    acts: list[Callable[[], object]] = [
        lambda: api.contexts.delete(user),
        lambda: api.contexts.create(user_id=user, context_type="note", content=1, text=""),
        lambda: api.contexts.import_([]),
        lambda: list(api.contexts.export(user_id=user)),
    ]
    with api:
        for act in acts:
            with pytest.raises(UnexpectedAnswer, match=rf"{status}, to https://example\.org/; correct base_url"):
                act()
    assert len(transport.requests) == 4


def test_an_answer_of_somebody_else_is_an_error_of_this_package(url: str, key: str) -> None:
    api, _ = faulty(url, key, httpx.Response(202, json={}))
    with api, pytest.raises(UnexpectedAnswer, match="202, is no Usage"):
        api.usage()


def test_what_has_not_changed_is_no_error(api: ContextApi, user: UUID) -> None:
    made = api.contexts.create(user_id=user, context_type="note", content=1, text="")
    assert get_context.sync_detailed(made.id, client=api.raw, if_none_match='"1"').status_code == 304


def test_a_name_is_sent_only_with_writes(url: str, key: str, user: UUID) -> None:
    api, transport = faulty(url, key)
    with api:
        api.contexts.count(user_id=user)
        api.contexts.search(query="nothing", user_id=user, mode="keyword")
    assert not [request for request in transport.requests if "Idempotency-Key" in request.headers]
