"""Fixtures that every folder with servers shares."""

from tests.support.fixtures import authority, pytest_runtest_makereport, servers, upstream, web
from tests.support.leased_sites import leasing_server, site

__all__ = [
    "authority",
    "leasing_server",
    "pytest_runtest_makereport",
    "servers",
    "site",
    "upstream",
    "web",
]
