"""That a break has to be declared, with a reason, and that what was released stays as it was.

usage: python3 -m unittest discover --start-directory compatibility --top-level-directory ., from the folder openapi
"""

from __future__ import annotations

import copy
import hashlib
import json
import tempfile
import unittest
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from . import __main__ as check
from .released import altered, last_release
from .test_compatibility import SMALL, got


class Declarations(unittest.TestCase):
    SENTENCE = "response schema Note, property `score`: is gone"

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.file = Path(folder.name) / "breaking.toml"
        self.changed = copy.deepcopy(SMALL)
        got(self.changed)["properties"].pop("score")

    def declare(self, *sentences: str, reason: str = "Nobody has ever had a use for it.") -> dict[str, str]:
        self.file.write_text("".join(f"[[break]]\nwhat = '{s}'\nreason = '{reason}'\n" for s in sentences))
        return check.declared(self.file)

    def test_a_break_has_to_be_declared(self) -> None:
        self.assertEqual(check.verdict(SMALL, self.changed, {}), [self.SENTENCE])
        self.assertEqual(check.verdict(SMALL, self.changed, self.declare(self.SENTENCE)), [])

    def test_a_declaration_that_is_no_break_is_refused(self) -> None:
        meant = self.declare(self.SENTENCE)
        self.assertEqual(check.verdict(SMALL, SMALL, meant), [f"declared, but no break: {self.SENTENCE}"])

    def test_a_declaration_has_a_reason_and_is_the_only_one(self) -> None:
        for sentences, reason in (((self.SENTENCE,), ""), ((self.SENTENCE, self.SENTENCE), "It was never filled in.")):
            with self.assertRaises(SystemExit):
                self.declare(*sentences, reason=reason)


class Releases(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.checksums = self.folder / "released.sha256"

    def release(self, version: str, document: dict = SMALL) -> str:
        """A line of the list for it."""
        file = self.folder / f"{version}.json"
        file.write_text(json.dumps(document))
        return f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n"

    def test_the_last_release_is_the_highest_version(self) -> None:
        for version in ("0.9.0", "0.10.0", "0.2.10"):
            self.release(version)
        self.assertEqual(last_release(self.folder).stem, "0.10.0")
        (self.folder / "latest.json").touch()
        with self.assertRaises(SystemExit):
            last_release(self.folder)

    def test_a_released_document_is_what_it_was(self) -> None:
        lines = self.release("0.1.0"), self.release("0.2.0")
        self.checksums.write_text("# Words.\n" + "".join(lines))
        self.assertEqual(altered(self.folder, self.checksums), [])

        self.release("0.1.0", {"paths": {}})
        self.assertEqual(altered(self.folder, self.checksums), ["0.1.0.json is not what was released"])
        self.checksums.write_text("".join(lines) + self.release("0.1.0", {"paths": {}}))
        self.assertEqual(altered(self.folder, self.checksums), ["released.sha256 lists a document twice"])
        self.checksums.write_text(lines[1])
        [sentence] = altered(self.folder, self.checksums)
        self.assertRegex(sentence, r"0\.1\.0\.json is not in released\.sha256; .* the line: [0-9a-f]{64}  0\.1\.0\.json")
        (self.folder / "0.2.0.json").unlink()
        self.assertIn("0.2.0.json is gone, but released.sha256 lists it", altered(self.folder, self.checksums))

    def test_the_gate_looks_for_that(self) -> None:
        line = self.release("0.1.0")
        declarations = self.folder / "breaking.toml"
        declarations.touch()
        arguments = [str(self.folder / "0.1.0.json"), *map(str, (self.folder, declarations, self.checksums))]
        self.checksums.write_text(line)
        with redirect_stdout(StringIO()):
            check.main(arguments)
        self.checksums.write_text(line.replace(line[:64], "0" * 64))
        with self.assertRaises(SystemExit), redirect_stderr(StringIO()) as said:
            check.main(arguments)
        self.assertIn("0.1.0.json is not what was released", said.getvalue())


if __name__ == "__main__":
    unittest.main()
