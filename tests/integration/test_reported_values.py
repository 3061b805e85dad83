"""Values that guards of the SDK report, on a server that judges by them: an id that the session made may be changed."""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from authz_client import Authz, Caller, Denied, Report, acting_for, caller
from tests.support.minting import Authority
from tests.support.people import People
from tests.support.server import Server, layout

FACTS = """
agents: {bot: ["spiffe://${trust_domain}/ns/support/sa/*"]}
subjects: {staff: {issuer: corp, claim: groups, contains: employees}}
destinations: {anywhere: {match: "*", clearance: []}}
resources: {events: {}}
templates:
  plan: {purpose: plan the day, deadline: 30m, starters: [bot], scope: [{system: calendar}]}
catalog:
  calendar:
    kind: http
    reports: sdk
    origin: https://calendar.example
    operations:
      create:
        effects: [write]
        creates: {id: /event/id, collection: events}
        input: {type: object, properties: {title: {type: string}}, required: [title]}
      list:
        effects: [read]
        introduces: {from: "/items/*/id", collection: events, by: owner}
        input: {type: object, properties: {}}
      change:
        effects: [write]
        objects: {from: /id, role: target, collection: events}
        input: {type: object, properties: {id: {type: [string, integer]}}, required: [id]}
"""
POLICY = """
@id("staff") permit(principal in Role::"staff", action, resource);
@id("bot") permit(principal in Role::"bot", action, resource);
@id("strange") forbid(principal, action == Action::"calendar.change", resource)
unless { [Origin::"named", Origin::"known", Origin::"made", Origin::"introduced"].containsAll(context.origins.target) };
"""


@dataclass(frozen=True)
class Site:
    """A server, and people."""

    server: Server
    people: People

    def enforcer(self) -> Authz:
        """A tool server's client."""
        return Authz(self.server.address("none"), enforcer=True, timeout=20)

    def agent(self) -> Authz:
        """The agent's own client."""
        return Authz(self.server.address("main"), credentials=self.people.bot, timeout=20)

    def who(self) -> Caller:
        """The agent on a task of its own, as the caller of a tool server."""
        with self.agent() as authz:
            task = authz.tasks.start("plan", subject_token=self.people.alice)
        return Caller(agent_token=self.people.bot, subject_token=self.people.alice, task=task.id)


@pytest.fixture(scope="module")
def site(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server that keeps reported values."""
    folder = tmp_path_factory.mktemp("values")
    bundle = folder / "bundle"
    (bundle / "policies").mkdir(parents=True)
    (bundle / "bundle.yaml").write_text("{name: values, tasks: required}\n")
    (bundle / "facts.yaml").write_text(FACTS)
    (bundle / "policies/all.cedar").write_text(POLICY)
    place = layout(folder / "server", authority, bundle)
    place.config["enforcers"].append(
        {"name": "calendar", "listener": "none", "asks": ["system:calendar"], "reports": "sdk"}
    )
    place.write()
    with Server(place) as server:
        yield Site(server, People.of(authority))


def guarded(authz: Authz, way: str) -> Callable[[str, Any, dict[str, Any]], Any]:
    """Runs an operation of the calendar that gives a result."""

    def call(operation: str, result: Any, arguments: dict[str, Any]) -> Any:
        guard = authz.guard(f"calendar.{operation}", arguments=lambda: arguments)

        @guard
        def sync() -> Any:
            return result

        @guard
        async def coroutine() -> Any:
            await asyncio.sleep(0)
            return result

        return sync() if way == "sync" else asyncio.run(coroutine())

    return call


@pytest.mark.parametrize("way", ["sync", "async"])
def test_what_the_session_made_may_be_changed(site: Site, way: str) -> None:
    """By the id of the result, in any form of the result; another id is held."""
    authz = site.enforcer()
    call = guarded(authz, way)
    forms: list[Any] = [{"event": {"id": "e-1"}}, json.dumps({"event": {"id": 4711}})]
    with caller(site.who()):
        for made, result in zip(["e-1", 4711], forms, strict=True):
            with pytest.raises(Denied):
                call("change", None, {"id": made})
            assert call("create", result, {"title": "Lunch"}) is result
            call("change", None, {"id": made})
        with pytest.raises(Denied):
            call("change", None, {"id": "e-2"})
        call("list", {"items": [{"id": "e-3"}, {}, {"id": "e-4"}]}, {})
        call("change", None, {"id": "e-4"})
        with pytest.raises(Denied):
            call("change", None, {"id": "e-5"})
    with caller(site.who()), pytest.raises(Denied):
        # Another task knows nothing of them.
        call("change", None, {"id": "e-1"})
    assert authz.reports.lost == 0


def test_a_stream_of_rows_tells_its_result(site: Site) -> None:
    """By `Report.returned`."""
    authz = site.enforcer()

    @authz.guard("calendar.list", report="told")
    def rows(*, told: Report) -> Iterator[str]:
        items = [{"id": f"row-{number}"} for number in range(3)]
        told.returned({"items": items})
        yield from (item["id"] for item in items)

    call = guarded(authz, "sync")
    with caller(site.who()):
        assert len(list(rows())) == 3
        call("change", None, {"id": "row-2"})


def test_an_agent_makes_no_value_known(site: Site) -> None:
    """Its guards report without values, so the node takes the report; the value stays unknown."""
    who = site.who()
    assert who.task is not None
    with site.agent() as authz, acting_for(site.people.alice):
        permit = authz.check("calendar.create", {"title": "Lunch"}, task=who.task)
        assert permit.report_values == ("/event/id",)
        call = guarded(authz, "sync")
        with authz.task("plan", subject_token=site.people.alice):
            call("create", {"event": {"id": "e-9"}}, {"title": "Lunch"})
            with pytest.raises(Denied):
                call("change", None, {"id": "e-9"})
    with caller(replace(who, task=who.task)), pytest.raises(Denied):
        guarded(site.enforcer(), "sync")("change", None, {"id": "e-9"})


def test_no_value_is_written(site: Site) -> None:
    """Neither the audit nor the log has a reported value."""
    with caller(site.who()):
        guarded(site.enforcer(), "sync")(
            "create", {"event": {"id": "canary-7f3"}}, {"title": "Lunch"}
        )
    folder = site.server.place.folder
    for name in ("audit.jsonl", "server.log"):
        assert "canary-7f3" not in (folder / name).read_text()
