"""The wheel of 64-bit Arm, run with QEMU: `make test-wheel-aarch64` builds it, and names its folder and that of QEMU."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.support.pins import write_pins

Run = Callable[..., str]
PLATFORMS: Final = ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")

pytestmark = [
    pytest.mark.peers,  # it installs packages
    pytest.mark.wheel,
    pytest.mark.slow,
    pytest.mark.timeout(500),
    pytest.mark.skipif("AUTHZ_AARCH64" not in os.environ, reason="needs make test-wheel-aarch64"),
]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Command of Debian's Python for Arm, which imports the wheels and their dependencies."""
    folder = tmp_path_factory.mktemp("aarch64")
    site = folder / "site"
    platforms = [part for platform in PLATFORMS for part in ("--platform", platform)]
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--target", site, "--only-binary", ":all:", "--constraint", write_pins(folder)),
            *("--python-version", "3.11", "--implementation", "cp", *platforms),
            *("--abi", "cp311", "--abi", "abi3", "--abi", "none"),
            *Path(os.environ["AUTHZ_WHEELS"]).glob("*.whl"),
        ],
        check=True,
        timeout=300,
    )
    arm = Path(os.environ["AUTHZ_AARCH64"])
    return [
        str(arm / "qemu/usr/bin/qemu-aarch64-static"),
        *("-L", str(arm / "root"), "-E", f"PYTHONPATH={site}"),
        str(arm / "root/usr/bin/python3"),
    ]


@pytest.fixture
def run(python: list[str], tmp_path: Path) -> Run:
    """Run Python with these arguments in an empty folder."""

    def of(*arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [*python, *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == code, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    return of


def test_aarch64_bundle(run: Run) -> None:
    """A bundle is written, checked and tested. No node is served."""
    assert run("-c", "import platform; print(platform.machine())") == "aarch64\n"
    assert re.match(r"authz \d", run("-m", "authz", "version"))
    run("-m", "authz", "init", "--enforce", "bundle")
    assert "6 policies" in run("-m", "authz", "check", "bundle")
    assert "7 passed, 0 failed" in run("-m", "authz", "test", "bundle")
    assert "trust domain dev.example" in run("-m", "authz", "keys", "make", "dev")
