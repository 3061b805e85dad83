"""Two servers on one PostgreSQL, the clock of one of which is wrong: it stops, and ends nothing of the other."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.integration.test_shared_state import shared
from tests.support.clock import MovedClock, compiler
from tests.support.issuing import Shop, issuing_layout
from tests.support.mutual import Pki
from tests.support.postgres import Postgres, programs
from tests.support.server import Server, layout
from tests.support.waiting import eventually
from tests.support.working import BUNDLE, Crew

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.minting import Authority

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(
        programs() is None, reason="PostgreSQL is not installed (Debian: postgresql)"
    ),
    pytest.mark.skipif(compiler() is None, reason="there is no C compiler (Debian: gcc)"),
]

DAYS = 86_400
WRONG = "which clocks may differ"


@dataclass
class Site:
    """Two servers, the clock of one of them, and who works there."""

    right: Server
    wrong: Server
    clock: MovedClock
    crew: Crew

    def spawn(self) -> None:
        """Starts the server whose clock is moved, and waits until it answers about itself."""
        self.wrong.spawn(**self.clock.environment)
        eventually(lambda: self.wrong.http("/readyz")[0] in {200, 503}, what="it answers")

    def is_ready(self) -> bool:
        """Whether that server may be asked."""
        return self.wrong.http("/readyz")[0] == 200

    def says_why(self) -> bool:
        """Whether it is not ready, and says that its clock is why."""
        status, body = self.wrong.http("/readyz")
        return status == 503 and any(WRONG in one for one in json.loads(body)["problems"])


@pytest.fixture
def site(authority: Authority, tmp_path: Path) -> Iterator[Site]:
    """Starts the database and the server whose clock is right."""
    with Postgres() as database:
        places = [
            layout(tmp_path / name, authority, BUNDLE, {"state": shared(database)})
            for name in ("right", "wrong")
        ]
        clock = MovedClock(tmp_path / "clock")
        wrong = Server(places[1])
        try:
            with Server(places[0]) as right:
                yield Site(right, wrong, clock, Crew.of(authority))
        finally:
            wrong.close()


@pytest.mark.parametrize("offset", [4 * DAYS, -4 * DAYS, 20])
def test_a_server_that_starts_with_a_wrong_clock_ends_nothing(site: Site, offset: int) -> None:
    """Neither tasks nor sessions; it denies, says why, and goes on by itself once its clock is right."""
    crew, right, wrong = site.crew, site.right, site.wrong
    task = crew.start(right)
    assert crew.check(right, task, "desk.note") == "PERMITTED"
    site.clock.set(offset)
    site.spawn()

    eventually(site.says_why, what="it says that its clock is wrong")
    # A sweep comes each second.
    time.sleep(3)
    for listener in ("main", "main-fast"):
        assert crew.check(wrong, task, "desk.note", listener=listener) == "STATE_UNAVAILABLE"
    assert crew.check(right, task, "desk.note") == "PERMITTED"
    assert crew.status(right, task) == "ACTIVE"

    site.clock.set(0)
    eventually(site.is_ready, what="it is ready again")
    assert crew.check(wrong, task, "desk.note") == "PERMITTED"
    assert abs(wrong.metric("authz_store_clock_ahead_seconds")) < 1


def test_a_clock_that_jumps_stops_its_server_at_once(site: Site) -> None:
    """Before the database is asked again; what is within the leeway does not matter."""
    crew, right, wrong = site.crew, site.right, site.wrong
    site.spawn()
    eventually(site.is_ready, what="it is ready")
    task = crew.start(wrong)
    site.clock.set(2)
    assert crew.check(wrong, task, "desk.note") == "PERMITTED"

    for offset in (4 * DAYS, -4 * DAYS):
        site.clock.set(offset)
        assert crew.check(wrong, task, "desk.note") == "STATE_UNAVAILABLE"
        assert site.says_why()
        time.sleep(2)
        assert crew.check(right, task, "desk.note") == "PERMITTED"
        site.clock.set(0)
        assert crew.check(wrong, task, "desk.note") == "PERMITTED"
        assert site.is_ready()


def test_signing_keys_and_credentials_outlive_a_wrong_clock(
    authority: Authority, tmp_path: Path
) -> None:
    """The server with the wrong clock forgets no key of the other, and issues nothing itself."""
    pki = Pki(tmp_path / "pki")
    clock = MovedClock(tmp_path / "clock")
    with Postgres() as database:
        changes = {"state": shared(database)}
        right, wrong = (
            Server(issuing_layout(tmp_path / name, authority, pki, changes))
            for name in ("right", "wrong")
        )
        with right:
            shop = Shop(right, authority, pki)
            issued = shop.issue(shop.permit(shop.start()))
            keys = shop.get("/jwks").json()
            clock.set(4 * DAYS)
            wrong.spawn(**clock.environment)
            try:
                eventually(lambda: wrong.http("/readyz")[0] == 503, what="it answers")
                # Keys are looked after every ten seconds at least.
                time.sleep(12)
                assert any(WRONG in one for one in json.loads(wrong.http("/readyz")[1])["problems"])
                assert shop.get("/jwks").json() == keys
                assert shop.introspect(issued.token).active
                assert shop.issue(shop.permit(shop.start())).token
            finally:
                wrong.close()
