"""Fixtures of every folder that starts servers; each folder's conftest imports them."""

import os
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.keyserver import KeyServer, WebAuthority
from tests.support.minting import GUARD, Authority
from tests.support.server import ISSUER, Server, layout, merged
from tests.support.upstream import Upstream

_running: list[Server] = []
_LOG_BYTES = 8_000


#: Bundles whose servers issue task credentials.
ISSUING: Final = frozenset({"tasks", "bound", "denials", "acceptance"})
#: The person who answers approvals at a bundle's servers: the user of the tests is one person for a server.
ANSWERING: Final[Mapping[str, str]] = {
    "acceptance": "alice",
    "approvals": "fay",
    "attacks": "alice",
}
#: Bundles whose servers believe the guard of the tests.
GUARDED: Final = frozenset({"acceptance"})


def issuing(folder: Path) -> dict[str, Any]:
    """Returns the configuration of a server that issues task credentials, with keys in a folder."""
    return {"credentials": {"issuer": ISSUER, "keys": {"folder": str(folder / "keys")}}}


def answering(sub: str) -> dict[str, Any]:
    """Returns the configuration of a server whose approvals the user of the tests answers as one person."""
    person = {"uid": os.geteuid(), "issuer": "corp", "sub": sub}
    claims = {"groups": ["employees", "finance"]}
    # An enforcer that runs under the user of a person is refused: here that of the portal.
    without_portal = {"enforcers": [], "listeners": {"portal": None}}
    return {
        "approvals": {"url": ISSUER, "people": [{**person, "claims": claims}]},
        **without_portal,
    }


def guarded(folder: Path, authority: Authority) -> dict[str, Any]:
    """Returns the configuration of a server that believes the guard of the tests, with its keys in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = folder / "guard.jwks"
    keys.write_text(authority.guard_jwks())
    return {"guards": {GUARD: {"keys": str(keys)}}}


class Servers:
    """One server for each bundle, and for each apart, started when first asked for.

    Args:
        folder: Where their files go.
        authority: Whose keys are trusted.
        changes_of: Returns what is merged into the configuration of the server of a name; default: nothing.
    """

    def __init__(
        self,
        folder: Path,
        authority: Authority,
        changes_of: Callable[[str], Mapping[str, Any]] | None = None,
    ) -> None:
        self._folder = folder
        self._authority = authority
        self._changes_of = changes_of or (lambda _: {})
        self._started: dict[str, Server] = {}

    def of(self, bundle: str, apart: str = "") -> Server:
        """Returns the server of a bundle.

        Args:
            bundle: Its name.
            apart: Which one, of several that share nothing.

        Returns:
            A server that runs.
        """
        name = bundle + apart
        if name not in self._started:
            folder = self._folder / name
            changes = issuing(folder) if bundle in ISSUING else {}
            if bundle in ANSWERING:
                changes |= answering(ANSWERING[bundle])
            if bundle in GUARDED:
                changes |= guarded(folder, self._authority)
            changes = merged(changes, self._changes_of(name))
            place = layout(folder, self._authority, bundle, changes)
            server = Server(place)
            _running.append(server)
            self._started[name] = server
            server.start()
        return self._started[name]

    def close(self) -> None:
        """Ends them all."""
        for server in self._started.values():
            server.close()
            _running.remove(server)


@pytest.fixture(scope="session")
def authority() -> Authority:
    """Fresh keys."""
    return Authority()


@pytest.fixture(scope="session")
def servers(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Servers by bundle, shared by tests that change nothing about them."""
    made = Servers(tmp_path_factory.mktemp("servers"), authority)
    yield made
    made.close()


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    """An upstream."""
    with Upstream() as running:
        yield running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Shows what the shared servers wrote, where a test failed."""
    del item, call
    report = yield
    if report.failed:
        for server in _running:
            if server.log.exists():
                text = server.log.read_bytes()[-_LOG_BYTES:].decode(errors="replace")
                report.sections.append((f"log of {server.place.folder.name}", text))
    return report


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[KeyServer, Path]]:
    """A web server, and the file of its authority."""
    ca = WebAuthority()
    (tmp_path / "ca.pem").write_bytes(ca.pem)
    with KeyServer(ca.leaf(tmp_path)) as running:
        yield running, tmp_path / "ca.pem"
