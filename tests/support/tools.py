"""Programs that tests run and that no Python package brings; `make test-tools` puts them into the cache."""

import os
import shutil
from pathlib import Path

import pytest


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "authz"


def find(name: str) -> Path:
    """Finds a program on PATH or in the cache; without it the test is left out, and the report says why."""
    on_path = shutil.which(name)
    if on_path is not None:
        return Path(on_path)
    for pattern in ("prometheus/usr/bin", "ghz-*", "helm-*"):
        for folder in sorted(_cache().glob(pattern), reverse=True):
            if (folder / name).exists():
                return folder / name
    pytest.skip(f"{name} is not there; run: make test-tools")


def mcp_peers() -> Path:
    """Finds the folder of the other MCP SDK and of MCP servers, or leaves the test out, as `find` does."""
    for done in sorted(_cache().glob("mcp-peers-*/done"), reverse=True):
        if shutil.which("node") is not None:
            return done.parent
    pytest.skip("MCP servers or node are not there; run: make test-tools")


def first_mcp_line() -> Path | None:
    """Finds the interpreter that has version 1 of the MCP SDK; None where it is not installed."""
    found = sorted(_cache().glob("mcp-peers-*/done"), reverse=True)
    return found[0].parent / "python/bin/python" if found else None


def fastmcp_python() -> Path:
    """Finds the interpreter that has FastMCP, or leaves the test out, as `find` does."""
    for done in sorted(_cache().glob("fastmcp-*/done"), reverse=True):
        return done.parent / "bin/python"
    pytest.skip("FastMCP is not there; run: make test-tools")


def agents_python() -> Path:
    """Finds the interpreter that has LangGraph and the OpenAI Agents SDK, or leaves the test out, as `find` does."""
    for done in sorted(_cache().glob("agents-*/done"), reverse=True):
        return done.parent / "bin/python"
    pytest.skip("the frameworks of agents are not there; run: make test-tools")


def frameworks() -> Path | None:
    """Finds the folder with the web frameworks of npm and PyPI; None where they are not installed."""
    found = sorted(_cache().glob("frameworks-*/done"), reverse=True)
    return found[0].parent if found else None


def login_issuer() -> Path:
    """Finds the folder with npm's oidc-provider, or leaves the test out, as `find` does."""
    for done in sorted(_cache().glob("oidc-provider-*/done"), reverse=True):
        if shutil.which("node") is not None:
            return done.parent
    pytest.skip("oidc-provider or node is not there; run: make test-tools")
