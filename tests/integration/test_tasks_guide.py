"""The commands of the guide to tasks work as printed, on the node that they speak of."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.readme import blocks, copy_tree, matches
from tests.support.server import command
from tests.support.waiting import eventually, free_port

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs/guides/tasks.md"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of the tree whose quickstart listens where nobody else does, with keys."""
    clone = tmp_path / "authz"
    copy_tree(ROOT, clone)
    config = clone / "examples/quickstart/config.yaml"
    text = config.read_text()
    for port in ("9191", "9192", "8282"):
        assert f":{port}" in text
        text = text.replace(f":{port}", f":{free_port()}")
    config.write_text(text)
    subprocess.run(
        [*command(), "keys", "make", "examples/quickstart/keys"],
        cwd=clone,
        check=True,
        timeout=60,
        capture_output=True,
    )
    return clone


def serving(clone: Path) -> Iterator[None]:
    """Runs the node while the commands run."""
    log = clone / "serve.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command(), "serve", "--config", "examples/quickstart/config.yaml"],
            cwd=clone,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        eventually(lambda: re.search(r"\bready\b", log.read_text()), what="it serves")
        yield
    finally:
        process.terminate()
        process.wait(15)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_guide(clone: Path) -> None:
    """Each block in order; what is printed is what the page says."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": "120",
        "NO_COLOR": "1",
    }
    first, *rest = blocks(GUIDE.read_text())
    assert len(rest) >= 5

    def run(commands: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=clone,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    run(first.commands)
    for _ in serving(clone):
        for block in rest:
            printed = run(block.commands)
            assert block.output is None or matches(block.output, printed), printed
