"""The demo of a mesh: every step of it comes out as it says, and then it can be tried."""

import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from authz.tools.demo.envoy import find_envoy


@pytest.mark.envoy
@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.skipif(find_envoy() is None, reason="Envoy is missing")
def test_an_agent_that_knows_nothing_is_observed_then_held(tmp_path: Path) -> None:
    """Each step is as expected; with `--keep`, the printed commands work until it is interrupted."""
    printed = tmp_path / "stdout"
    with printed.open("w") as out:
        mesh = subprocess.Popen(
            [sys.executable, "-m", "authz", "demo", "--mesh", "--keep"],
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
        )
    stopper = threading.Timer(200, mesh.kill)
    stopper.start()
    try:
        assert mesh.stderr is not None
        notes = ""
        for line in mesh.stderr:
            notes += line
            if line.startswith("Everything keeps running"):
                break
        text = printed.read_text()
        assert "Everything keeps running" in notes, notes + text
        assert "WRONG" not in text
        assert re.search(r"^(\d+) of \1 steps as expected$", text, re.MULTILINE)
        assert "STEP_UP, only recorded" in text
        assert "mail-stays-inside" in text
        lines = text.splitlines()
        folder = next(line for line in lines if line.startswith("cd "))
        harmless, stranger = (
            subprocess.run(
                ["bash", "-c", f"{folder} && {line}"],
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            ).stdout
            for line in lines
            if " call.py " in line
        )
        assert harmless == "answer: order 7: shipped on Tuesday\n"
        assert stranger.startswith("error: ")
        mesh.send_signal(signal.SIGINT)
        assert mesh.wait(30) == 0
    finally:
        stopper.cancel()
        if mesh.poll() is None:
            mesh.kill()
        mesh.wait()
        if mesh.stderr is not None:
            mesh.stderr.close()
