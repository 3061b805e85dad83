"""Stops before collection where the environment is older than the tree."""

from importlib.util import find_spec

import pytest


def pytest_configure() -> None:
    """Name the command that helps, instead of one import error for each test file."""
    if find_spec("authz_client") is None:
        pytest.exit(
            "authz_client is not installed in this environment. Run `make setup`, or only"
            " `.venv/bin/pip install flit_core && .venv/bin/pip install --no-deps --no-build-isolation --editable client`",
            returncode=pytest.ExitCode.USAGE_ERROR,
        )
