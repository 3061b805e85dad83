"""What was measured where: the facts beside every figure."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from os import sched_getaffinity
from pathlib import Path

RELEASED = ("release", "guided")
"""Profiles whose figures say something."""


def facts(root: Path, build_profile: str, ghz: Path | None = None) -> dict[str, object]:
    """Returns the machine, the revision and the versions.

    Args:
        root: folder of the repository.
        build_profile: cargo's profile of the extension that was measured.
        ghz: the load generator, where one was used.
    """
    versions = {name: metadata.version(name) for name in ("grpcio", "protobuf")}
    versions["python"] = platform.python_version()
    versions["rust"] = _line("rustc", "--version").removeprefix("rustc ")
    if ghz is not None:
        versions["ghz"] = _line(str(ghz), "--version") or ghz.name
    return {
        "cpu": _cpu(),
        "cores": len(sched_getaffinity(0)),
        "kernel": platform.release(),
        "date": datetime.now(UTC).date().isoformat(),
        "revision": _line("git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"),
        "build_profile": build_profile,
        "versions": versions,
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _line(*command: str) -> str:
    """The first line that a program prints; empty where it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return ""
    return ((done.stdout or done.stderr).splitlines() or [""])[0].strip()
