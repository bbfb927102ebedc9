"""What callers pass in: plain values, named as the service names them. A test compares them with the document.

What comes back are the generated models, re-exported by the package.
"""

# Annotations have to be values here: as text they would hide from a TypedDict which fields may be left out.

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NotRequired, TypedDict
from uuid import UUID

#: Times may also be text, as RFC 3339 has it.
Time = datetime | str
Id = UUID | str
#: As in the guide, e.g. ``{"metadata.source": "manual", "version": {"$gt": 1}}``.
Filter = Mapping[str, Any]


class NewContext(TypedDict):
    """A context to be written."""

    user_id: Id
    context_type: str
    #: Any JSON.
    content: Any
    key: NotRequired[str | None]
    metadata: NotRequired[Mapping[str, Any] | None]
    text: NotRequired[str | None]
    language: NotRequired[str | None]
    embedding: NotRequired[Sequence[float] | None]
    expires_at: NotRequired[Time | None]
    ttl_seconds: NotRequired[int | None]
    sliding_ttl_seconds: NotRequired[int | None]
    valid_from: NotRequired[Time | None]
    valid_to: NotRequired[Time | None]


class ContextLine(NewContext):
    """A line of an import: what is written, and what an export adds."""

    id: NotRequired[Id]
    version: NotRequired[int]
    created_at: NotRequired[Time]
    updated_at: NotRequired[Time]
    text_given: NotRequired[bool]


class ContextPatch(TypedDict, total=False):
    """Fields to change; None removes one."""

    context_type: str
    content: Any
    key: str | None
    metadata: Mapping[str, Any] | None
    text: str | None
    language: str | None
    embedding: Sequence[float] | None
    expires_at: Time | None
    ttl_seconds: int | None
    sliding_ttl_seconds: int | None
    valid_from: Time | None
    valid_to: Time | None


class BatchOperation(TypedDict):
    """One write of a batch."""

    op: Literal["create", "upsert", "update", "delete"]
    id: NotRequired[Id | None]
    context: NotRequired[NewContext | None]
    if_version: NotRequired[int | None]


class Recency(TypedDict):
    """How much it counts that something was written lately."""

    half_life_seconds: float
    weight: NotRequired[float | None]


class Weights(TypedDict, total=False):
    """How much each leg of a hybrid search counts."""

    keyword: float | None
    semantic: float | None


class Search(TypedDict, total=False):
    """What to look for: ``query`` or ``vector``."""

    query: str | None
    vector: Sequence[float] | None
    mode: Literal["hybrid", "semantic", "keyword"]
    user_id: Id | None
    context_types: Sequence[str]
    filter: Filter | None
    limit: int | None
    min_score: float | None
    include: Sequence[Literal["content", "metadata", "text"]] | None
    as_of: Time | None
    valid_at: Time | None
    recency: Recency | None
    diversity: float | None
    fusion: Literal["score", "rank"]
    weights: Weights | None
    effort: Literal["low", "normal", "exact"]
    rerank: bool
    explain: bool


class Budget(TypedDict):
    """How long a packed text may be, in tokens of the model that will read it."""

    max_tokens: int
    tokenizer: NotRequired[Literal["o200k_base", "cl100k_base", "chars"]]


class Quota(TypedDict, total=False):
    """How much of a packed text may be of one type."""

    max_items: int | None
    max_tokens: int | None


class Pack(Search):
    """A search, and what to make of it."""

    budget: Budget
    format: NotRequired[Literal["markdown", "xml", "json"]]
    unit: NotRequired[Literal["auto", "chunk", "context"]]
    quotas: NotRequired[Mapping[str, Quota] | None]


class Selection(TypedDict, total=False):
    """Which contexts are meant."""

    user_id: Id | None
    context_type: str | None
    filter: Filter | None


class Count(Selection, total=False):
    """Which contexts are meant, and when."""

    as_of: Time | None
    valid_at: Time | None


class CreateApiKey(TypedDict):
    """An API key to be made."""

    name: str
    scopes: Sequence[Literal["read", "write", "admin"]]
    user_id: NotRequired[Id | None]
    tenant_id: NotRequired[Id | None]
    expires_at: NotRequired[Time | None]


class FillSpace(TypedDict, total=False):
    """How an embedding space is filled."""

    is_paused: bool | None
    contexts_per_second: int | None
