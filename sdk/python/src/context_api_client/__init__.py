"""Client of Context API. Start with ``ContextApi``, or ``AsyncContextApi``.

What comes back are ``generated.models``; what goes in has its types in ``types``.
"""

from ._async.client import AsyncContextApi
from ._async.pages import AsyncPages
from .generated.models import ErrorCode
from ._policy import Retry
from ._sync.client import ContextApi
from ._sync.pages import Pages
from .errors import (
    ApiError,
    Conflict,
    ConnectionFailed,
    ContextApiError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    SecretLost,
    ServiceFailed,
    StillRunning,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    UnexpectedAnswer,
)

__all__ = [
    "ApiError",
    "AsyncContextApi",
    "AsyncPages",
    "Conflict",
    "ConnectionFailed",
    "ContextApi",
    "ContextApiError",
    "ErrorCode",
    "InvalidRequest",
    "NotFound",
    "Pages",
    "PermissionDenied",
    "PreconditionFailed",
    "Retry",
    "SecretLost",
    "ServiceFailed",
    "StillRunning",
    "TooManyRequests",
    "Unauthenticated",
    "Unavailable",
    "UnexpectedAnswer",
]
