"""A pytest plugin with the fixture `authz_kernel`.

`conftest.py` says `pytest_plugins = ["authz.testing.plugin"]`, and pytest's configuration which bundle:

    authz_bundle = policy
    authz_vars =
      trust_domain=dev.example
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from authz.testing.kernel import Kernel

__all__ = ["authz_kernel", "pytest_addoption"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare what the configuration may say.

    Args:
        parser: Pytest's.
    """
    parser.addini("authz_bundle", "folder of the bundle that is tested", default="")
    parser.addini("authz_vars", "values of the bundle's variables, name=value", type="linelist")


@pytest.fixture(scope="session")
def authz_kernel(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    """The engine over the bundle of the configuration; a fixture of the same name replaces it.

    Args:
        request: Pytest's.

    Yields:
        The kernel.
    """
    config = request.config
    named = config.getini("authz_bundle")
    if not named:
        raise pytest.UsageError("`authz_bundle` in pytest's configuration names no bundle")
    pairs = [line.partition("=") for line in config.getini("authz_vars")]
    variables = {name.strip(): value.strip() for name, _, value in pairs}
    with Kernel.load(Path(config.rootpath) / named, variables=variables) as kernel:
        yield kernel
