"""Recipient lists that a bundle names by URL, fetched by a real server from a real web server."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.clerking import Clerk
from tests.support.keyserver import Answer, KeyServer
from tests.support.minting import DOMAIN, Authority
from tests.support.server import Server, layout
from tests.support.surfaces import LANES, reason_name
from tests.support.waiting import eventually

QUICK = {"min": "1s", "max": "1s", "timeout": "500ms"}
CUSTOMERS = "id,email\n42,cleo@customer.example\n43,dan@customer.example\n"
PATH = "/customers.csv?key=k"


@dataclass
class Scene:
    """A node of the bundle `history`, whose customers lie on a web server."""

    web: KeyServer
    server: Server
    clerk: Clerk
    task: str = ""

    def sends(self, to: str, lane: str = "") -> str:
        """Sends mail with a customer's data; returns the reason."""
        said = {"to": [to]}
        decision = self.clerk.check(self.server, self.task, "mail.send", said, f"main{lane}")
        return reason_name(decision)

    def works(self) -> None:
        """Starts a task that reads a customer's data."""
        self.task = self.clerk.start(self.server, "desk")
        read = self.clerk.check(self.server, self.task, "crm.get", {"id": "42"})
        assert reason_name(read) == "PERMITTED"

    def stands(self) -> dict[str, Any]:
        """How the recipient list stands, as readiness tells it."""
        listed = self.server.readiness()["recipient_lists"]
        found: dict[str, Any] = next(one for one in listed if one["name"] == "customers")
        return found

    def problems(self) -> str:
        """What readiness says is wrong."""
        return "\n".join(self.server.readiness()["problems"])


def scene(
    web: tuple[KeyServer, Path], authority: Authority, folder: Path, **settings: Any
) -> Scene:
    """Lays everything out, and starts nothing."""
    running, ca_file = web
    running.answers[PATH] = Answer(CUSTOMERS)
    changes = {
        "recipient_lists": {"ca_file": str(ca_file), "refresh": QUICK, **settings},
        "vars": {"trust_domain": DOMAIN, "people": running.url()},
    }
    place = layout(folder, authority, "history", changes)
    facts = place.folder / "bundle" / "facts.yaml"
    text, listed = facts.read_text(), "{file: data/customers.csv, column: email}"
    assert listed in text
    fetched = f"{{url: '${{people}}{PATH}', column: email, max_age: 12s}}"
    facts.write_text(text.replace(listed, fetched))
    return Scene(running, Server(place), Clerk.of(authority))


def test_who_is_in_it_is_fetched_again_and_again(
    web: tuple[KeyServer, Path], authority: Authority, tmp_path: Path
) -> None:
    """A change counts; what is bad or cannot be had leaves the one before, until that is too old."""
    made = scene(web, authority, tmp_path / "node", allow_private=True)
    with made.server as server:
        eventually(lambda: made.stands()["fresh"], what="the recipient list is fetched")
        assert made.stands() | {"age_seconds": 0} == {
            "name": "customers",
            "from": made.web.url("/customers.csv"),
            "entries": 2,
            "trusted": True,
            "age_seconds": 0,
            "max_age_seconds": 12,
            "fresh": True,
            "error": "",
        }
        made.works()
        for lane in LANES:
            assert made.sends("cleo@customer.example", lane) == "PERMITTED"
            assert made.sends("eve@customer.example", lane) == "APPROVAL_REQUIRED"

        made.web.answers[PATH] = Answer("email\neve@customer.example\n")
        eventually(lambda: made.sends("eve@customer.example") == "PERMITTED")
        for lane in LANES:
            assert made.sends("cleo@customer.example", lane) == "APPROVAL_REQUIRED"

        made.web.answers[PATH] = Answer("email\nmallory@evil.example,x\n")
        eventually(lambda: "2 fields" in made.stands()["error"], what="half of a row is refused")
        assert made.sends("eve@customer.example") == "PERMITTED", "the one before counts"
        assert server.metric("authz_recipient_list_refresh_total", result="refused") > 0
        assert server.metric("authz_recipient_list_fresh", recipient_list="customers") == 1
        assert "the recipient list `customers` was not refreshed (" in made.problems()

        made.web.answers[PATH] = Answer("nothing", 302, {"location": made.web.url("/elsewhere")})
        eventually(lambda: not made.stands()["fresh"], what="it is too old")
        for lane in LANES:
            assert made.sends("eve@customer.example", lane) == "APPROVAL_REQUIRED"
        assert "the recipient list `customers` is too old, and trusts nothing" in made.problems()
        assert server.http("/readyz")[0] == 200
        assert "/elsewhere" not in made.web.asked

        made.web.answers[PATH] = Answer(CUSTOMERS)
        eventually(lambda: made.sends("cleo@customer.example") == "PERMITTED")
        assert "customers" not in made.problems()


def test_a_bundle_reaches_no_inner_address(
    web: tuple[KeyServer, Path], authority: Authority, tmp_path: Path
) -> None:
    """Unless the configuration lets it: nothing is asked, and nothing is trusted."""
    made = scene(web, authority, tmp_path / "node")
    with made.server:
        eventually(lambda: "its address may not be asked" in made.stands()["error"])
        made.works()
        for lane in LANES:
            assert made.sends("cleo@customer.example", lane) == "APPROVAL_REQUIRED"
        assert made.stands()["entries"] == 0
        assert made.web.asked == []
