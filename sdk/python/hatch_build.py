"""Makes what is not written by hand, whenever the package is built: the code for the document, and the synchronous half.

In a source distribution both are there already.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

#: Streams of lines, for which the generator has nothing: `_async/bulk.py` does it.
BY_HAND = {"GET /v1/contexts/export", "POST /v1/contexts/import"}
#: What the synchronous half has instead. Names that begin with ``Async`` are not known to lose that by themselves.
SYNCHRONOUS = {
    name: name.replace("Async", "", 1)
    for name in (
        "AsyncApiKeys AsyncAuditLog AsyncBaseTransport AsyncContextApi AsyncContexts AsyncEmbeddingSpaces "
        "AsyncHTTPTransport AsyncOperations AsyncPages AsyncRetrying AsyncTenants AsyncTransport"
    ).split()
} | {
    "aclose": "close",
    "aiter_bytes": "iter_bytes",
    "aread": "read",
    "asyncio": "time",
    "asyncio_detailed": "sync_detailed",
    "get_async_httpx_client": "get_httpx_client",
    "handle_async_request": "handle_request",
}


class Generate(BuildHookInterface[Any]):
    """Hatch calls it before it collects the files."""

    def dependencies(self) -> list[str]:
        """Needed for this alone."""
        return ["openapi-python-client==0.29.1", "unasync==0.6.0"] if self._is_checkout else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generates into the source folder, where git ignores it."""
        package = Path(self.root, "src", "context_api_client")
        if self._is_checkout:
            self._generate(package / "generated")
            self._make_synchronous(package / "_async", package / "_sync")
            shutil.copy(self._document.parents[1] / "LICENSE", self.root)
        build_data["artifacts"] += [f"{package.relative_to(self.root)}/{made}/**" for made in ("generated", "_sync")]

    @property
    def _is_checkout(self) -> bool:
        """A source distribution may be unpacked anywhere; what stands around it is somebody else's, and is not run."""
        return not Path(self.root, "PKG-INFO").exists()

    @property
    def _document(self) -> Path:
        return Path(self.root).parents[1] / "openapi" / "openapi.json"

    def _generate(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        with tempfile.TemporaryDirectory() as temporary:
            plain = Path(temporary, "plain.json")
            with plain.open("wb") as file:
                script = self._document.parent / "clients" / "plain.py"
                subprocess.run([sys.executable, script, self._document], stdout=file, check=True)
            options = {
                "--path": plain,
                "--output-path": folder,
                "--config": Path(self.root, "generator.yaml"),
                "--custom-template-path": Path(self.root, "templates"),
            }
            command = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none"]
            command += [str(word) for option in options.items() for word in option]
            said = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
            ).stdout
        # A warning is a part of the document that is left out.
        left_out = set(re.findall(r"^WARNING parsing (.*) within", said, re.MULTILINE))
        if left_out != BY_HAND:
            raise RuntimeError(f"left out: {left_out}\n{said}")

    def _make_synchronous(self, source: Path, target: Path) -> None:
        import unasync

        shutil.rmtree(target, ignore_errors=True)
        rule = unasync.Rule(f"{source}/", f"{target}/", additional_replacements=SYNCHRONOUS)
        unasync.unasync_files([str(file) for file in source.glob("*.py")], [rule])
