"""Fixtures of tests that make leases on a real PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.brokering import INSTALLED, Site, running_server, site_of
from tests.support.postgres import Postgres

VERSIONS = [
    pytest.param(version, marks=[pytest.mark.peers] if version == "PostgreSQL 18" else [])
    for version in INSTALLED
]


@pytest.fixture(scope="module", params=VERSIONS)
def leasing_server(request: pytest.FixtureRequest) -> Iterator[Postgres]:
    """One server of each version for all tests of a file: none breaks it. Version 16 changed who may administer roles."""
    with running_server(request.param) as server:
        yield server


@pytest.fixture
def site(leasing_server: Postgres, tmp_path: Path) -> Iterator[Site]:
    """A server without roles of ours."""
    with site_of(leasing_server, tmp_path) as made:
        yield made
