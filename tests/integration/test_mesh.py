"""The demo of a mesh: every step of it comes out as it says."""

import subprocess
import sys

import pytest

from authz.tools.demo.envoy import find_envoy


@pytest.mark.envoy
@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.skipif(find_envoy() is None, reason="Envoy is missing")
def test_an_agent_that_knows_nothing_is_observed_then_held() -> None:
    """Ends with 0 only if each step was seen, and tells what `authz why` says of the last call that was held."""
    done = subprocess.run(
        [sys.executable, "-m", "authz", "demo", "--mesh"],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WRONG" not in done.stdout
    assert "STEP_UP, only noted" in done.stdout
    assert "mail-stays-inside" in done.stdout
