"""The quickstart works as printed, on the node that it has its reader serve."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.support.readme import blocks, matches
from tests.support.server import command
from tests.support.waiting import eventually, free_port

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs/start/quickstart.md"
SERVE: Final = "authz serve --config dev/config.yaml"


@contextmanager
def serving(folder: Path) -> Iterator[None]:
    """Run the page's command to serve while its commands to ask run."""
    log = folder / "serve.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command(), *SERVE.split()[1:]], cwd=folder, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        eventually(lambda: re.search(r"\bready\b", log.read_text()), what="it serves")
        yield
    finally:
        process.terminate()
        process.wait(15)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_quickstart(tmp_path: Path) -> None:
    """In an empty folder, with other ports than the page's."""
    text = PAGE.read_text()
    assert f"```sh\n{SERVE}\n```" in text
    before, asking = (blocks(part) for part in text.split(f"{SERVE}\n```\n"))
    assert len(before) >= 4
    assert len(asking) >= 2
    ports = {f":{port}": f":{free_port()}" for port in ("9191", "8282")}
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": "160",
        "NO_COLOR": "1",
    }

    def run(commands: str, expected: str | None) -> None:
        for port, free in ports.items():
            commands = commands.replace(port, free)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
        assert expected is None or matches(expected, done.stdout), f"{commands}\n{done.stdout}"

    for block in before:
        run(block.commands, block.output)
    config = tmp_path / "dev" / "config.yaml"
    served = config.read_text()
    for port, free in ports.items():
        assert port in served
        served = served.replace(port, free)
    config.write_text(served)
    with serving(tmp_path):
        for block in asking:
            run(block.commands, block.output)
