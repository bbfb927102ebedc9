"""What the generated functions take."""

from __future__ import annotations

from .generated.client import AuthenticatedClient


class RawClient(AuthenticatedClient):
    """As generated, but its API key stays out of logs, where an object that is printed soon arrives."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self._base_url!r})"
