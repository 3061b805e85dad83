"""The demo of a mesh: every step of it comes out as it says, and then it can be tried."""

import re
from pathlib import Path

import pytest

from authz.tools.demo.envoy import find_envoy
from tests.support import tools
from tests.support.demo import kept, outputs


@pytest.mark.envoy
@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.skipif(find_envoy() is None, reason="Envoy is missing")
def test_an_agent_that_knows_nothing_is_observed_then_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step is as expected; with `--keep`, the printed commands work until it is interrupted."""
    first_line = tools.first_mcp_line()
    monkeypatch.setenv("DEMO_MCP_1", str(first_line or ""))
    with kept(tmp_path, "--mesh", "--keep") as (text, notes):
        assert "Everything keeps running" in notes, notes + text
        assert "WRONG" not in text
        assert ("version 1 of the MCP SDK" in text) == (first_line is not None)
        assert re.search(r"^(\d+) of \1 steps as expected$", text, re.MULTILINE)
        assert "STEP_UP, only recorded" in text
        assert "mail-stays-inside" in text
        harmless, stranger = outputs(text, " call.py ")
        assert harmless == "answer: order 7: shipped on Tuesday\n"
        assert stranger.startswith("error: ")
