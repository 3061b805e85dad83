"""The README's commands work as printed, in a copy of the tree."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.readme import Block, blocks, copy_tree, matches

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


def test_marks() -> None:
    """The reader finds commands and output, in order, and refuses stray marks."""
    text = "<!-- run -->\n```sh\necho a\n```\n\n<!-- output -->\n```text\na\n```\n<!-- run -->\n```sh\nb\n```\n"
    assert blocks(text) == [Block(1, "echo a\n", "a\n"), Block(10, "b\n", None)]
    for stray in (
        "<!-- run -->\ntext\n",
        "<!-- output -->\n```\na\n```\n",
        "<!-- run -->\n```py\n```\n",
    ):
        with pytest.raises(ValueError, match=r"mark|output|sh"):
            blocks(stray)


def test_output_is_compared_but_for_ids_and_times() -> None:
    """Ids, times and durations differ; everything else does not."""
    expected = "decision 00000000-0000-0000-0000-000000000000 in 12 µs\n…\nat … end\n"
    printed = "decision 01890a5d-ac96-774b-bcce-b302099a8057 in 7.5 µs\nmore\nlines\nat 7 end\n"
    assert matches(expected, printed)
    assert not matches(expected, printed.replace("more", "more").replace("at 7 end", "at 7 e"))
    assert not matches("PERMIT\n", "DENY\n")


@pytest.mark.envoy
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_readme(tmp_path: Path) -> None:
    """Each block in order, in one copy; what is printed is what the file says."""
    found = blocks(README.read_text())
    assert found, "the README marks no commands"
    clone = tmp_path / "authz"
    copy_tree(ROOT, clone)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": "120",
        "NO_COLOR": "1",
    }
    for block in found:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.commands],
            cwd=clone,
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        where = f"README.md:{block.line}"
        assert done.returncode == 0, f"{where}\n{done.stdout}\n{done.stderr}"
        if block.output is not None:
            assert matches(block.output, done.stdout), f"{where}\n{done.stdout}"
