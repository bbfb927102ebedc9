"""From what callers pass in to what the generated functions take.

The fields go to the service as they are: it is the one that judges them, and says what is wrong with which. A way through
the generated models would drop names that these do not know.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, TypeVar, cast
from uuid import UUID

from .generated.types import UNSET, Unset

T = TypeVar("T")


class _Verbatim:
    fields: Any

    def to_dict(self) -> Any:
        return self.fields


@cache
def _verbatim(kind: type[Any]) -> type[Any]:
    return type(kind.__name__, (_Verbatim, kind), {})


def body(kind: type[T], fields: Mapping[str, Any]) -> T:
    """A ``kind`` that is sent as these fields."""
    made: Any = object.__new__(_verbatim(cast(Any, kind)))
    made.fields = jsonable(fields)
    return cast(T, made)


def jsonable(value: Any) -> Any:
    """The same with ids and times as text."""
    return json.loads(json_text(value))


def json_text(value: Any) -> str:
    """As JSON, ids and times as text."""
    return json.dumps(value, default=_as_text, ensure_ascii=False, separators=(",", ":"))


def _as_text(value: Any) -> Any:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return timestamp(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"{value!r} is no JSON")


def timestamp(value: datetime) -> str:
    """Python's times without a zone are local ones, and nobody else would know which."""
    if value.tzinfo is None:
        raise ValueError(f"{value!r} has no time zone")
    return value.isoformat()


def optional(value: T | None) -> T | Unset:
    """What is None is left out."""
    return UNSET if value is None else value


def uuid(value: UUID | str) -> UUID:
    return value if isinstance(value, UUID) else UUID(value)


def time(value: datetime | str | None) -> datetime | Unset:
    if value is None:
        return UNSET
    return datetime.fromisoformat(timestamp(value) if isinstance(value, datetime) else value)


def if_match(version: int | str | None) -> str | Unset:
    """``"3"``, or ``*`` for any."""
    if version is None:
        return UNSET
    return "*" if version == "*" else f'"{int(version)}"'
