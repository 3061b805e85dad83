"""`scripts/rename.py`: old words of bundles, configurations and programs become today's."""

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT: dict[str, Any] = runpy.run_path("scripts/rename.py")

CASES = [
    (".yaml", "directories:\n  a: {file: x}\n", "recipient_lists:\n  a: {file: x}\n"),
    (".yaml", "  c: {directory: a, clearance: []}", "  c: {recipient_list: a, clearance: []}"),
    (".yaml", "credentials:\n  injections: {erp: {}}", "credentials:\n  static_secrets: {erp: {}}"),
    (".yaml", "# a directory of customers\n", "# a recipient list of customers\n"),
    (".cedar", "when { !context.excess.isEmpty() };", "when { !context.uncleared_labels.isEmpty() };"),
    (".py", 'record["input"]["excess"]', 'record["input"]["uncleared_labels"]'),
    (".py", '"""Reads a directory."""\nx.directory = 1', '"""Reads a recipient list."""\nx.recipient_list = 1'),
    (".py", "authz_injection_readable", "authz_static_secret_readable"),
    (".rs", "// A directory.\nDirectoryEntries::read('\"', \"a\\\n b\", directory)",
     "// A recipient list.\nRecipientListEntries::read('\"', \"a\\\n b\", recipient_list)"),
    (".md", "a [directory](x.md) in `directories`", "a [recipient list](x.md) in `recipient_lists`"),
    (".yaml", "annotations: {mend: Look.}", "annotations: {fix: Look.}"),
]  # fmt: skip
KEPT = [
    (".py", '"No such file or directory"'),
    (".md", "A prompt injection is text of a stranger."),
    (".py", "TemporaryDirectory() and recommend and amended"),
]


@pytest.mark.parametrize(("suffix", "old", "new"), CASES)
def test_an_old_word_becomes_the_new_one(suffix: str, old: str, new: str) -> None:
    """As key and identifier with underscores, in a sentence with spaces; a second run changes nothing."""
    assert SCRIPT["rename"](old, suffix) == new
    assert SCRIPT["rename"](new, suffix) == new


@pytest.mark.parametrize(("suffix", "text"), KEPT)
def test_other_meanings_stay(suffix: str, text: str) -> None:
    """The same letters in a word with another meaning."""
    assert SCRIPT["rename"](text, suffix) == text


def test_check_writes_nothing(tmp_path: Path) -> None:
    """It lists the file and fails; without `--check` it writes the file, and then has nothing to do."""
    file = tmp_path / "a.yaml"
    file.write_text("directories: {}\n")
    command = [sys.executable, "scripts/rename.py", "--check", str(tmp_path)]
    checked = subprocess.run(command, capture_output=True, check=False, text=True)
    assert (checked.returncode, checked.stdout, file.read_text()) == (
        1,
        f"{file}\n",
        "directories: {}\n",
    )
    del command[2]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert file.read_text() == "recipient_lists: {}\n"
    command.insert(2, "--check")
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
