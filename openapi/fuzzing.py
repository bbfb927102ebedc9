"""What the fuzzer (scripts/fuzz) has to know of the service, and its settings in schemathesis.toml cannot say."""

from __future__ import annotations

import json
import os
import re
from typing import Any
from uuid import UUID, uuid4

import schemathesis
from schemathesis.openapi.checks import EnsureResourceAvailability, RejectedPositiveData, UseAfterFree

LINES = "application/x-ndjson"
# docs/filters.md
FILTER_BYTES_MAX = 8192
FILTERS_ONE_IN = 40
OWN_KEY = UUID(os.environ["FUZZ_API_KEY_ID"])


def name_of(operation: Any) -> str:
    return operation.definition.raw["operationId"]


@schemathesis.serializer(LINES)
def lines(_context, value):
    """A media type that it does not know: lines are text as it stands."""
    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else str(value)).encode("utf-8", "surrogatepass")


# --- what is sent -------------------------------------------------------------------------------------------------

# By operation, how many cases about its filter there have been.
filters: dict[str, int] = {}


@schemathesis.hook
def filter_case(_context, case):
    """The coverage phase writes out, side by side, each way in which each field of a filter can be right or wrong, and each
    combination: some 11,000 requests for one operation, and six have filters. Of these every fortieth is sent. A filter that
    is longer than a filter may be, which no schema can say, is refused for that, whatever else it is; none is sent."""
    if case.meta is None or case.meta.phase.name.value != "coverage" or not is_about_a_filter(case):
        return True
    if len(filter_of(case).encode("utf-8", "surrogatepass")) > FILTER_BYTES_MAX:
        return False
    name = name_of(case.operation)
    filters[name] = filters.get(name, -1) + 1
    return filters[name] % FILTERS_ONE_IN == 0


def is_about_a_filter(case: Any) -> bool:
    about = case.meta.phase.data
    if about.parameter == "filter":
        return True
    if not (isinstance(case.body, dict) and "filter" in case.body):
        return False
    return not case.meta.generation.mode.is_negative or "/properties/filter" in (about.location or "")


def filter_of(case: Any) -> str:
    value = case.body["filter"] if isinstance(case.body, dict) else (case.query or {}).get("filter")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@schemathesis.hook
def before_call(_context, case, _arguments):
    """The fuzzer rotates and revokes any API key but the one it lives on, whose id it meets in the list of keys."""
    if name_of(case.operation) in ("rotate_api_key", "revoke_api_key") and id_of(case) == OWN_KEY:
        case.path_parameters["id"] = str(uuid4())


def id_of(case: Any) -> UUID | None:
    """As the service reads it, which takes more than one spelling."""
    try:
        return UUID(str((case.path_parameters or {}).get("id")))
    except ValueError:
        return None


# --- what is answered ---------------------------------------------------------------------------------------------

# What became of contexts that were deleted.
HIDDEN, RESTORED = "hidden", "restored"
deleted: dict[UUID | None, str] = {}
# API keys that an operator made for another tenant.
of_others: set[UUID] = set()


@schemathesis.hook
def after_call(_context, case, response):
    name, context = name_of(case.operation), id_of(case)
    if name == "delete_context" and response.status_code == 204:
        deleted.pop(context, None)
        if str((case.query or {}).get("purge")).lower() != "true":
            deleted[context] = HIDDEN
    elif name == "restore_context" and response.status_code == 200 and context in deleted:
        deleted[context] = RESTORED
    elif name == "create_api_key" and response.status_code == 201 and isinstance(case.body, dict) and case.body.get("tenant_id"):
        of_others.add(UUID(response.json()["id"]))


@schemathesis.hook
def filter_failure(_context, failure, case, response):
    """What is deleted must be gone. But a context that was not purged keeps its versions, and can be restored. What was created must be
    there. But a key that was made for another tenant is that tenant's, and to others there is none of its id. What the schema allows
    must be taken. But there is what no schema can say."""
    if isinstance(failure, RejectedPositiveData):
        return not is_beyond_the_schema(response)
    if isinstance(failure, EnsureResourceAvailability):
        return id_of(case) not in of_others
    if not isinstance(failure, UseAfterFree):
        return True
    state = deleted.get(id_of(case))
    return not (state == RESTORED or state == HIDDEN and name_of(case.operation) == "list_versions")


# Contexts that batches and imports have made are of any user. The limits of a filter are about all of it (docs/filters.md).
BEYOND_THE_SCHEMA = re.compile(
    r"a context stays with its user"
    r"|is a test too many; a filter has 64 at most"
    r"|is nested too deeply; .* may stand in each other \d+ times"
    rf"|is \d+ bytes, {FILTER_BYTES_MAX} at most"
)


def is_beyond_the_schema(response: Any) -> bool:
    """Whether a request was refused for such things, and for nothing else."""
    mistakes = response.json().get("errors", []) if response.status_code == 400 else []
    return bool(mistakes) and all(BEYOND_THE_SCHEMA.fullmatch(mistake["detail"]) for mistake in mistakes)
