"""Proxies that the environment names."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace

import pytest
from context_api_client import ContextApi, PermissionDenied, Retry


@pytest.fixture
def proxy() -> Iterator[SimpleNamespace]:
    """It lets nothing through."""
    asked: list[str] = []

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield SimpleNamespace(address=f"127.0.0.1:{server.server_port}", asked=asked)
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "all_proxy"])
@pytest.mark.parametrize("scheme", ["http://", ""])
def test_goes_by_the_proxy(
    variable: str, scheme: str, proxy: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, url: str, key: str
) -> None:
    monkeypatch.setenv(variable, scheme + proxy.address)
    with ContextApi(url, key, retry=Retry(times=0)) as api, pytest.raises(PermissionDenied):
        api.usage()
    assert proxy.asked == [f"{url}/v1/usage"]


@pytest.mark.parametrize("exception", ["127.0.0.1", "*", "example.org, 127.0.0.1"])
def test_goes_past_the_proxy(
    exception: str, proxy: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, url: str, key: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.address}")
    monkeypatch.setenv("NO_PROXY", exception)
    with ContextApi(url, key) as api:
        api.usage()
    assert proxy.asked == []
