"""A service of its own for a test that looks at it from outside: the database and the embedding model in process, in a folder
that is gone afterwards."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

KEY = "ctx_" + os.urandom(24).hex()
READY_SECONDS_MAX = 60
STOP_SECONDS_MAX = 20


@contextmanager
def running(program: str) -> Iterator[str]:
    """The address of `program`, which serves until the end of the block."""
    with tempfile.TemporaryDirectory(prefix="context-api-explorer.") as folder:
        log = Path(folder) / "server.log"
        settings = {
            "DATA_DIR": f"{folder}/data", "BIND_ADDR": "127.0.0.1:0", "METRICS_ADDR": "off", "BOOTSTRAP_API_KEY": KEY,
            "EMBEDDING_PROVIDER": "builtin", "EMBEDDING_THREADS": "1", "LOG_FORMAT": "json", "LOG_LEVEL": "info",
        }
        with log.open("wb") as output:
            process = subprocess.Popen(
                [program, "serve"], env={**os.environ, **settings}, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        try:
            yield address(process, log)
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Port 0 is a free one; the log says which."""
    deadline = time.monotonic() + READY_SECONDS_MAX
    while True:
        found = re.search(r'"message":"ready","address":"([^"]*)"', log.read_text())
        if found:
            return f"http://{found[1]}"
        if process.poll() is not None or time.monotonic() >= deadline:
            raise SystemExit(f"the service did not get ready:\n{log.read_text()[-4000:]}")
        time.sleep(0.05)
