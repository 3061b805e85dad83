"""The distribution `authz-analyzer`: its version, its licence, and that nothing looks for it in a registry."""

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "native/analyze"


def read_toml(path: str) -> dict[str, Any]:
    """Read a file of the tree."""
    return tomllib.loads((ROOT / path).read_text())


def test_analyzer_and_server_have_one_version() -> None:
    """The server refuses an analyzer of another version, so the extra asks for exactly this one."""
    project = read_toml("native/analyze/pyproject.toml")["project"]
    version = read_toml("native/Cargo.toml")["workspace"]["package"]["version"]
    assert project["version"] == version
    assert read_toml("native/analyze/Cargo.toml")["package"]["version"] == version
    server = read_toml("pyproject.toml")["project"]
    assert f"{project['name']}=={version}" in server["optional-dependencies"]["analyze"]
    assert not [one for one in server["dependencies"] if one.startswith(project["name"])]
    assert "dependencies" not in project


def test_licence_is_that_of_the_server() -> None:
    """A wheel takes its licence from its own folder."""
    assert (FOLDER / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert read_toml("native/analyze/pyproject.toml")["project"]["license-files"] == ["LICENSE"]


def test_the_lock_has_no_analyzer() -> None:
    """`make setup` installs the lock, and a clone builds the analyzer itself."""
    lock = (ROOT / "requirements.lock").read_text()
    assert re.search(r"(?m)^cvc5==", lock)
    assert not re.search(r"(?m)^authz-analyzer==", lock)
    assert read_toml("pyproject.toml")["tool"]["uv"]["sources"]["authz-analyzer"] == {
        "path": "native/analyze"
    }
