"""Fixtures that every folder with servers shares."""

from tests.support.fixtures import authority, pytest_runtest_makereport, servers, upstream, web

__all__ = ["authority", "pytest_runtest_makereport", "servers", "upstream", "web"]
