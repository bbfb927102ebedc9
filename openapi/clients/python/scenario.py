"""What every generated client has to be able to do, here with openapi-python-client and nothing of ours around it."""

from __future__ import annotations

import json
import os
from typing import Any, TypeVar
from uuid import UUID, uuid4

from context_api import AuthenticatedClient
from context_api.api.contexts import (
    count_contexts,
    create_context,
    export_contexts,
    get_context,
    list_contexts,
    patch_context,
    write_batch,
)
from context_api.api.search import pack_contexts, search_contexts
from context_api.api.usage import get_usage
from context_api.models import (
    Batch,
    BatchAnswer,
    BatchOp,
    BatchOperationInput,
    Context,
    ContextInput,
    ContextInputMetadataType0,
    ContextPage,
    ContextPatch,
    Count,
    Counted,
    ErrorCode,
    Filter,
    ImportAnswer,
    Mode,
    Pack,
    PackBudget,
    PackResponse,
    ProblemDetails,
    Search,
    SearchResponse,
)
from context_api.types import UNSET, Response

T = TypeVar("T")

USER = uuid4()
URL, KEY = os.environ["CONTEXT_API_URL"], os.environ["CONTEXT_API_KEY"]
client = AuthenticatedClient(base_url=URL, token=KEY)


def note(content: str, *, context_type: str = "note", **more: object) -> ContextInput:
    made = ContextInput(user_id=USER, context_type=context_type, content=content)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def got(kind: type[T], response: Response[Any]) -> T:
    assert isinstance(response.parsed, kind), response
    return response.parsed


def done(step: str) -> None:
    print("done:", step)


def create() -> UUID:
    metadata = ContextInputMetadataType0.from_dict({"source": "book"})
    response = create_context.sync_detailed(
        client=client, body=note("The okapi lives in the rain forest.", metadata=metadata)
    )
    created = got(Context, response)
    assert response.status_code == 201
    assert (created.version, created.text) == (1, "The okapi lives in the rain forest.")
    assert created.metadata["source"] == "book"
    return created.id


def upsert() -> UUID:
    first = create_context.sync_detailed(client=client, body=note("Zebras run.", key="zebra"))
    second = create_context.sync_detailed(client=client, body=note("Zebras run fast.", key="zebra"))
    assert (first.status_code, second.status_code) == (201, 200)
    assert got(Context, second).id == got(Context, first).id
    assert got(Context, second).version == 2
    return got(Context, first).id


def search(okapi: UUID) -> None:
    book = Filter.from_dict({"metadata.source": "book"})
    body = Search(query="okapi", mode=Mode.KEYWORD, user_id=USER, filter_=book, limit=3)
    found = got(SearchResponse, search_contexts.sync_detailed(client=client, body=body))
    assert [hit.context.id for hit in found.data] == [okapi]
    assert found.data[0].score > 0
    assert found.degraded == []


def pack(okapi: UUID) -> None:
    body = Pack(query="okapi", mode=Mode.KEYWORD, user_id=USER, budget=PackBudget(max_tokens=200))
    packed = got(PackResponse, pack_contexts.sync_detailed(client=client, body=body))
    assert "rain forest" in packed.text
    assert 0 < packed.tokens <= 200
    assert packed.citations[0].context_id == okapi


def page() -> None:
    operations = [
        BatchOperationInput(op=BatchOp.CREATE, context=note(f"Page {n}.", context_type="page")) for n in range(1, 6)
    ]
    batch = got(BatchAnswer, write_batch.sync_detailed(client=client, body=Batch(operations=operations)))
    assert [result.status for result in batch.results] == [201] * 5
    pages: list[list[str]] = []
    cursor: str | None = None
    while cursor is not None or not pages:
        response = list_contexts.sync_detailed(
            client=client, user_id=USER, context_type="page", limit=2, cursor=UNSET if cursor is None else cursor
        )
        listed = got(ContextPage, response)
        pages.append([context.text for context in listed.data])
        cursor = listed.next_cursor
        assert listed.has_more == (cursor is not None)
    assert pages == [["Page 5.", "Page 4."], ["Page 3.", "Page 2."], ["Page 1."]]


def conflict(zebra: UUID) -> None:
    stale = patch_context.sync_detailed(zebra, client=client, body=ContextPatch(content="Late."), if_match='"1"')
    assert (stale.status_code, got(ProblemDetails, stale).code) == (412, ErrorCode.PRECONDITION_FAILED)
    fresh = patch_context.sync_detailed(zebra, client=client, body=ContextPatch(content="In time."), if_match='"2"')
    assert got(Context, fresh).version == 3

    name = str(uuid4())
    once = create_context.sync_detailed(client=client, body=note("Once."), idempotency_key=name)
    again = create_context.sync_detailed(client=client, body=note("Once."), idempotency_key=name)
    other = create_context.sync_detailed(client=client, body=note("Another."), idempotency_key=name)
    assert got(Context, again).id == got(Context, once).id
    assert (other.status_code, got(ProblemDetails, other).code) == (422, ErrorCode.IDEMPOTENCY_KEY_REUSED)


def errors() -> None:
    missing = got(ProblemDetails, get_context.sync_detailed(uuid4(), client=client))
    assert (missing.code, missing.status) == (ErrorCode.CONTEXT_NOT_FOUND, 404)
    wrong = got(ProblemDetails, create_context.sync_detailed(client=client, body=note("Wrong.", ttl_seconds=0)))
    assert wrong.code == ErrorCode.INVALID_REQUEST
    assert [field.pointer for field in wrong.errors or []] == ["/ttl_seconds"]
    stranger = AuthenticatedClient(base_url=URL, token="ctx_nobody")
    assert got(ProblemDetails, get_usage.sync_detailed(client=stranger)).code == ErrorCode.INVALID_API_KEY


def import_() -> None:
    lines = [note("First line.", key="line-1"), note("Second line.", ttl_seconds=0), note("Third line.")]
    # The generator makes no function for lines, which its HTTP client streams as they come.
    response = client.get_httpx_client().post(
        "/v1/contexts/import",
        content=(json.dumps(line.to_dict()).encode() + b"\n" for line in lines),
        headers={"Content-Type": "application/x-ndjson", "Idempotency-Key": str(uuid4())},
    )
    imported = ImportAnswer.from_dict(response.json())
    assert (imported.created, imported.failed, imported.next_line) == (2, 1, 4)
    assert (imported.errors[0].line, imported.errors[0].error.code) == (2, ErrorCode.INVALID_REQUEST)


def export(okapi: UUID) -> None:
    exported = export_contexts.sync_detailed(client=client, user_id=USER)
    assert exported.status_code == 200
    assert "Context-As-Of" in exported.headers
    counted = got(Counted, count_contexts.sync_detailed(client=client, body=Count(user_id=USER)))
    ids = [UUID(json.loads(line)["id"]) for line in exported.content.splitlines()]
    assert len(ids) == counted.count == 10
    assert okapi in ids


okapi = create()
done("create")
zebra = upsert()
done("upsert")
search(okapi)
done("search")
pack(okapi)
done("pack")
page()
done("page")
conflict(zebra)
done("conflict")
errors()
done("errors")
import_()
done("import")
export(okapi)
done("export")
