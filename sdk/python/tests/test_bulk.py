"""Import and export."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx
import pytest
from context_api_client import ConnectionFailed, ContextApi, Retry
from context_api_client._sync.bulk import ndjson
from faults import Faulty

MANY = 2_000
#: Far less than the lines have together, which is 20 MB.
MEMORY_BYTES_MAX = 5_000_000


def lines(user: UUID, count: int, padding: str = "") -> Iterator[dict[str, Any]]:
    # Without text, so that the service has nothing to embed.
    for n in range(count):
        yield {"user_id": user, "context_type": "line", "key": f"k{n}", "content": [n, padding], "text": ""}


def test_streams_both_ways_in_constant_memory(api: ContextApi, user: UUID) -> None:
    tracemalloc.start()
    try:
        answer = api.contexts.import_(lines(user, MANY, padding="x" * 10_000))
        assert (answer.created, answer.failed, answer.next_line) == (MANY, 0, MANY + 1)
        numbers = [line["content"][0] for line in api.contexts.export(user_id=user)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert numbers == list(range(MANY))
    assert peak < MEMORY_BYTES_MAX


def test_tells_which_line_is_wrong(api: ContextApi, user: UUID) -> None:
    wrong = {"user_id": user, "context_type": "line", "content": 1, "ttl_seconds": 0}
    answer = api.contexts.import_([*lines(user, 2), wrong])
    assert (answer.created, answer.failed) == (2, 1)
    assert (answer.errors[0].line, answer.errors[0].error.code) == (3, "invalid_request")


def test_an_import_whose_answer_is_lost_is_sent_again(url: str, key: str, user: UUID) -> None:
    transport = Faulty("lost")
    with ContextApi(url, key, transport=transport, retry=Retry(pause=0.01)) as api:
        # Without a key, so that only the name of the import keeps them from being stored twice.
        answer = api.contexts.import_([{"user_id": user, "context_type": "line", "content": n, "text": ""} for n in range(3)])
        assert (answer.created, answer.unchanged) == (0, 3)
        assert api.contexts.count(user_id=user) == 3


def test_lines_that_come_slowly_are_not_held_back() -> None:
    now = 0.0

    def slow() -> Iterator[int]:
        nonlocal now
        for n in range(5):
            now += 2.0
            yield n

    # At 6 seconds, and in the end.
    assert list(ndjson(slow(), clock=lambda: now)) == [b"0\n1\n2\n", b"3\n4\n"]
    assert list(ndjson(range(3), clock=lambda: now)) == [b"0\n1\n2\n"]


def test_an_iterator_is_sent_once(url: str, key: str, user: UUID) -> None:
    transport = Faulty("refused")
    with ContextApi(url, key, transport=transport) as api, pytest.raises(ConnectionFailed):
        api.contexts.import_(lines(user, 3))
    assert len(transport.requests) == 1


def test_an_export_goes_on_where_it_broke_off(url: str, key: str, api: ContextApi, user: UUID) -> None:
    api.contexts.import_(list(lines(user, 50)))
    transport = Faulty(3_000, 4_000)
    with ContextApi(url, key, transport=transport) as broken:
        seen: list[object] = []
        for line in broken.contexts.export(user_id=user):
            if not seen:
                # After the moment of the export.
                api.contexts.create(user_id=user, context_type="line", content="late", text="")
            seen.append(line["content"])
    assert seen == [[n, ""] for n in range(50)]
    assert len(transport.requests) == 3


def test_what_looks_like_a_line_break_ends_no_line(api: ContextApi, user: UUID) -> None:
    content = "next\x85line\u2028paragraph\u2029vertical\x0btab\rreturn\nfeed"
    assert api.contexts.import_([{"user_id": user, "context_type": "line", "content": content, "text": ""}]).created == 1
    assert [line["content"] for line in api.contexts.export(user_id=user)] == [content]


def test_a_line_without_an_end_broke_off(url: str, key: str, api: ContextApi, user: UUID) -> None:
    api.contexts.import_(list(lines(user, 2)))
    whole = httpx.get(f"{url}/v1/contexts/export", params={"user_id": str(user)}, headers={"Authorization": f"Bearer {key}"})
    # To the end of the JSON of the first line, which no HTTP says to be too little.
    cut = httpx.Response(200, headers={"Context-As-Of": whole.headers["Context-As-Of"]}, content=whole.content.split(b"\n")[0])
    transport = Faulty(cut)
    with ContextApi(url, key, transport=transport) as broken:
        assert [line["content"][0] for line in broken.contexts.export(user_id=user)] == [0, 1]
    assert len(transport.requests) == 2


def test_an_import_of_an_export_changes_nothing(api: ContextApi, user: UUID) -> None:
    api.contexts.import_(list(lines(user, 20)))
    answer = api.contexts.import_(api.contexts.export(user_id=user))
    assert (answer.created, answer.updated, answer.unchanged, answer.failed) == (0, 0, 20, 0)
